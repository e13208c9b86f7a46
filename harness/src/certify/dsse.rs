//! The envelope: DSSE v1.0.2 with one Ed25519 signature (RFC 8032), as canonical JSON.
//!
//! What is signed is not the payload but `DSSEv1 len(type) type len(payload) payload`, so that a payload cannot
//! be passed off as another type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::evidence::sha256_hex;

/// Type of every payload that is signed here.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// A signed payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Base64.
    pub payload: String,
    /// [`PAYLOAD_TYPE`].
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// One.
    pub signatures: Vec<Signed>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// SHA-256 of the public key's DER (SubjectPublicKeyInfo), hex. A hint: nobody trusts it.
    pub keyid: String,
    /// Base64.
    pub sig: String,
}

/// Why an envelope is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// It is no envelope.
    #[error("the certificate is not a DSSE envelope: {0}")]
    NotOne(String),
    /// Its bytes are not those that this program writes for what they mean.
    #[error("the certificate's bytes were changed: they are not the canonical form of its content")]
    NotCanonical,
    /// It signs something else.
    #[error("the certificate's payload is of type {0:?}")]
    Type(String),
    /// None or several.
    #[error("the certificate has {0} signatures; one is expected")]
    Signatures(usize),
    /// Not by this key.
    #[error("the signature is not by the key that you trust: it names {named}, yours is {trusted}")]
    Key {
        /// Key id in the envelope.
        named: String,
        /// Key id of the trusted key.
        trusted: String,
    },
    /// By this key, and of something else.
    #[error("the signature does not fit the payload: one of them was changed")]
    Signature,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 {kind} key in PEM: {cause}")]
pub struct SignError {
    kind: &'static str,
    cause: String,
}

/// DSSE's pre-authentication encoding.
fn encode(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Signs.
#[derive(Debug)]
pub struct Signer(SigningKey);

impl Signer {
    /// A key from 32 random bytes; where they come from is the caller's business.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// A private key as PKCS#8 PEM (`openssl genpkey -algorithm ed25519`).
    ///
    /// # Errors
    /// [`SignError`].
    pub fn from_pem(pem: &str) -> Result<Self, SignError> {
        SigningKey::from_pkcs8_pem(pem)
            .map(Self)
            .map_err(|error| SignError { kind: "private", cause: error.to_string() })
    }

    /// The private key as PKCS#8 PEM.
    ///
    /// # Errors
    /// [`SignError`] when it cannot be encoded.
    pub fn private_pem(&self) -> Result<String, SignError> {
        self.0
            .to_pkcs8_pem(LineEnding::LF)
            .map(|pem| pem.to_string())
            .map_err(|error| SignError { kind: "private", cause: error.to_string() })
    }

    /// What checks this key's signatures.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier(self.0.verifying_key())
    }

    /// Signs `payload`.
    ///
    /// # Errors
    /// [`SignError`] when the public key cannot be encoded.
    pub fn sign(&self, payload: &[u8]) -> Result<Envelope, SignError> {
        let signature = self.0.sign(&encode(payload));
        Ok(Envelope {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![Signed {
                keyid: self.verifier().key_id()?,
                sig: STANDARD.encode(signature.to_bytes()),
            }],
        })
    }
}

/// Checks.
#[derive(Debug, Clone)]
pub struct Verifier(VerifyingKey);

impl Verifier {
    /// A public key as PEM (`openssl pkey -pubout`).
    ///
    /// # Errors
    /// [`SignError`].
    pub fn from_pem(pem: &str) -> Result<Self, SignError> {
        VerifyingKey::from_public_key_pem(pem)
            .map(Self)
            .map_err(|error| SignError { kind: "public", cause: error.to_string() })
    }

    /// The public key as PEM.
    ///
    /// # Errors
    /// [`SignError`] when it cannot be encoded.
    pub fn pem(&self) -> Result<String, SignError> {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .map_err(|error| SignError { kind: "public", cause: error.to_string() })
    }

    /// SHA-256 of the key's DER, hex: `openssl pkey -pubin -in key.pem -outform DER | sha256sum`.
    ///
    /// # Errors
    /// [`SignError`] when it cannot be encoded.
    pub fn key_id(&self) -> Result<String, SignError> {
        self.0
            .to_public_key_der()
            .map(|der| sha256_hex(der.as_bytes()))
            .map_err(|error| SignError { kind: "public", cause: error.to_string() })
    }

    /// The payload of the envelope in `bytes`, if this key has signed it.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn open(&self, bytes: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        let not_one = |cause: String| EnvelopeError::NotOne(cause);
        let envelope: Envelope =
            serde_json::from_slice(bytes).map_err(|error| not_one(error.to_string()))?;
        if envelope.bytes() != bytes {
            return Err(EnvelopeError::NotCanonical);
        }
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::Type(envelope.payload_type));
        }
        let [signed] = envelope.signatures.as_slice() else {
            return Err(EnvelopeError::Signatures(envelope.signatures.len()));
        };
        let trusted = self.key_id().map_err(|error| not_one(error.to_string()))?;
        if signed.keyid != trusted {
            return Err(EnvelopeError::Key { named: signed.keyid.clone(), trusted });
        }
        let payload =
            STANDARD.decode(&envelope.payload).map_err(|error| not_one(error.to_string()))?;
        let signature = STANDARD.decode(&signed.sig).map_err(|_| EnvelopeError::Signature)?;
        let signature = Signature::from_slice(&signature).map_err(|_| EnvelopeError::Signature)?;
        // Strict: a signature that only some implementations accept is none.
        self.0
            .verify_strict(&encode(&payload), &signature)
            .map_err(|_| EnvelopeError::Signature)?;
        Ok(payload)
    }
}

impl Envelope {
    /// The one form in which it is written: no spaces, keys in this order, a newline at the end.
    ///
    /// # Panics
    /// Never: strings serialise.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("strings serialise");
        bytes.push(b'\n');
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // protocol.md of secure-systems-lab/dsse, with our type in place of theirs.
        let expected = format!("DSSEv1 28 {PAYLOAD_TYPE} 11 hello world");
        assert_eq!(encode(b"hello world"), expected.as_bytes());
    }

    #[test]
    fn a_key_goes_through_pem_and_every_flipped_bit_is_refused() {
        let signer = Signer::from_seed(&[7; 32]);
        let again = Signer::from_pem(&signer.private_pem().unwrap()).unwrap();
        let verifier = Verifier::from_pem(&again.verifier().pem().unwrap()).unwrap();
        let bytes = signer.sign(b"{\"a\":1}").unwrap().bytes();
        assert_eq!(verifier.open(&bytes), Ok(b"{\"a\":1}".to_vec()));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(verifier.open(&changed).is_err(), "byte {at} bit {bit}");
            }
        }
        for cut in 0..bytes.len() {
            assert!(verifier.open(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn another_key_is_named() {
        let (ours, theirs) = (Signer::from_seed(&[1; 32]), Signer::from_seed(&[2; 32]));
        let bytes = theirs.sign(b"{}").unwrap().bytes();
        let error = ours.verifier().open(&bytes).unwrap_err();
        assert!(matches!(error, EnvelopeError::Key { .. }), "{error}");
        // A swapped key id does not help.
        let mut envelope = theirs.sign(b"{}").unwrap();
        envelope.signatures[0].keyid = ours.verifier().key_id().unwrap();
        assert_eq!(ours.verifier().open(&envelope.bytes()), Err(EnvelopeError::Signature));
        assert!(
            Signer::from_pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
                .is_err()
        );
    }
}
