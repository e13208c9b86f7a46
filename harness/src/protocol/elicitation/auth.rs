//! Keys and signatures: HMAC-SHA256 (RFC 2104) by whoever speaks, with a key of that agent alone.
//!
//! All keys come from one secret of the run by HMAC as a pseudo-random function, so nothing but the secret
//! has to be kept over a restart. A key belongs to an epoch: it changes when the monotonic clock starts
//! anew, so that stamps of an earlier boot verify against nothing. What is signed is the message as it is
//! sent, up to its signature (`wire.rs`): its lengths and its kind are in it, so no two messages have the
//! same signed bytes, and no JSON has to be brought into a canonical form.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::message::{Cancel, Create, Id, Nonce, Respond};
use super::wire::{self, Sink};

type Mac = Hmac<Sha256>;

/// The secret of a run: whoever has it can speak as anybody. It is in no log and no message.
#[derive(Clone)]
pub struct RunSecret([u8; 32]);

impl RunSecret {
    /// From 32 bytes of the operating system's generator.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What the checksums of the run's event log begin with. It is the same in every epoch: a log is read
    /// after a reboot.
    #[must_use]
    pub fn log_key(&self) -> [u8; 16] {
        let mut mac = keyed(&self.0);
        mac.update(b"tailbeam log v1");
        output(mac)[..16].try_into().expect("16 of 32 bytes")
    }
}

impl std::fmt::Debug for RunSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunSecret")
    }
}

/// A signature. Comparing two takes the same time wherever they differ.
#[derive(Debug, Clone, Copy, Eq)]
pub struct Tag(pub [u8; 32]);

impl PartialEq for Tag {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Tag {
    /// What stands in a message before it is signed.
    pub const NONE: Self = Self([0; 32]);
}

fn keyed(key: &[u8]) -> Mac {
    Mac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn output(mac: Mac) -> [u8; 32] {
    mac.finalize().into_bytes().into()
}

/// The keys of all agents and of the owners, derived when they are needed.
#[derive(Clone)]
pub struct KeyRing {
    agents: Mac,
    owners: Mac,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRing")
    }
}

impl KeyRing {
    /// The keys of a run while the monotonic clock that stamps its messages runs (`epoch`: one more after
    /// every reboot; a restart of the process alone keeps it).
    #[must_use]
    pub fn new(secret: &RunSecret, epoch: u32) -> Self {
        let branch = |label: &[u8]| {
            let mut mac = keyed(&secret.0);
            mac.update(label);
            mac.update(&epoch.to_le_bytes());
            keyed(&output(mac))
        };
        Self { agents: branch(b"tailbeam agents v1"), owners: branch(b"tailbeam owners v1") }
    }

    /// The key of one agent. Two HMACs.
    #[must_use]
    pub fn agent(&self, agent: u32) -> AgentKey {
        let mut mac = self.agents.clone();
        mac.update(&agent.to_le_bytes());
        AgentKey(keyed(&output(mac)))
    }

    /// What the addressee of `id` signs its answer over. It is made anew when it is needed, also after a
    /// restart, and written nowhere. The asker's nonce is in it: an id that comes again after a log was
    /// lost has another challenge.
    pub(super) fn challenge(&self, id: Id, digest: &Digest) -> Nonce {
        Nonce(self.owned(b"challenge", &id.to_bytes(), digest))
    }

    /// The 64 bits of an id that nobody can guess.
    pub(super) fn id_bits(&self, seq: u64, digest: &Digest) -> u64 {
        let bits = self.owned(b"id", &seq.to_le_bytes(), digest);
        u64::from_le_bytes(bits[..8].try_into().expect("8 of 32 bytes"))
    }

    fn owned(&self, label: &[u8], what: &[u8], digest: &Digest) -> [u8; 32] {
        let mut mac = self.owners.clone();
        // The label's length first: no label and what follows read like another label.
        mac.update(&[u8::try_from(label.len()).expect("a short label")]);
        mac.update(label);
        mac.update(what);
        mac.update(&digest.0);
        output(mac)
    }
}

/// SHA-256 of an asker and its nonce: what is kept and logged instead of the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of the nonce of an asker. The asker is in it: nobody can use up another's nonces.
    #[must_use]
    pub fn of(from: u32, nonce: &Nonce) -> Self {
        let mut hash = Sha256::new();
        hash.update(from.to_le_bytes());
        hash.update(nonce.0);
        Self(hash.finalize().into())
    }

    /// The owner core of the elicitation that this nonce makes, of `cores`: always the same one, so that
    /// a nonce that comes again meets its first use without any core asking another.
    #[must_use]
    pub fn owner(&self, cores: u16) -> u16 {
        let bits = u64::from_le_bytes(self.0[24..].try_into().expect("8 of 32 bytes"));
        u16::try_from(bits % u64::from(cores.max(1))).expect("below a u16")
    }
}

/// One agent's key, ready to sign. About 600 bytes; never printed.
#[derive(Clone)]
pub struct AgentKey(Mac);

impl std::fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentKey")
    }
}

struct Signing(Mac);

impl Sink for Signing {
    fn put(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl AgentKey {
    fn tag(&self, fields: impl FnOnce(&mut Signing)) -> Tag {
        let mut signing = Signing(self.0.clone());
        fields(&mut signing);
        Tag(output(signing.0))
    }

    /// The `k`-th nonce of this agent: 256 bits that nobody without the key can foresee, and that a
    /// schedule replayed from its seed makes again.
    #[must_use]
    pub fn nonce(&self, k: u64) -> Nonce {
        let mut mac = self.0.clone();
        // No message begins with this byte: `wire::VERSION` is never 0.
        mac.update(b"\0nonce");
        mac.update(&k.to_le_bytes());
        Nonce(output(mac))
    }

    /// The signature of a request. Allocates nothing.
    #[must_use]
    pub fn of_create(&self, create: &Create) -> Tag {
        self.tag(|sink| wire::create_body(create, sink))
    }

    /// The signature of an answer. Allocates nothing.
    #[must_use]
    pub fn of_respond(&self, respond: &Respond) -> Tag {
        self.tag(|sink| wire::respond_body(respond, sink))
    }

    /// The signature of a withdrawal. Allocates nothing.
    #[must_use]
    pub fn of_cancel(&self, cancel: &Cancel) -> Tag {
        self.tag(|sink| wire::cancel_body(cancel, sink))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(secret: u8, epoch: u32) -> KeyRing {
        KeyRing::new(&RunSecret::new([secret; 32]), epoch)
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_mac_is_hmac_sha256() {
        let mut mac = keyed(b"Jefe");
        mac.update(b"what do ya want for nothing?");
        let hex: String = output(mac).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn keys_differ_by_agent_epoch_and_secret_and_come_again() {
        let nonce = |ring: &KeyRing, agent| ring.agent(agent).nonce(7);
        let mine = nonce(&ring(1, 1), 1);
        assert_eq!(mine, nonce(&ring(1, 1), 1));
        for other in [nonce(&ring(1, 1), 2), nonce(&ring(1, 2), 1), nonce(&ring(2, 1), 1)] {
            assert_ne!(mine, other);
        }
        let (one, two) = (Digest::of(1, &mine), Digest::of(2, &mine));
        assert_ne!(one, two, "another agent's use of the same nonce is another use");
        let id = Id::new(3, 9, 5);
        assert_eq!((id.core(), id.seq()), (3, 9));
        assert_ne!(ring(1, 1).challenge(id, &one), ring(1, 1).challenge(id, &two));
        assert!(one.owner(3) < 3 && one.owner(0) == 0);
    }

    #[test]
    fn secrets_do_not_print() {
        let (secret, keys) = (RunSecret::new([0xAB; 32]), ring(0xAB, 1));
        let printed = format!("{secret:?} {keys:?} {:?}", keys.agent(1));
        assert_eq!(printed, "RunSecret KeyRing AgentKey");
    }
}
