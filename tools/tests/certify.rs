//! `certify` and `verify` as commands; the signature by programs that are not ours.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(
    clippy::print_stdout,
    reason = "which other programs have agreed belongs into the test's output"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");

fn run(store: &Path, args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("--store").arg(store).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn only_run(store: &Path) -> PathBuf {
    let mut runs = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    runs.find(|path| path.join("seg").is_dir()).unwrap()
}

#[test]
fn a_certificate_is_issued_verified_and_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let store = scratch.path().join("store");
    let file = |name: &str| scratch.path().join(name).display().to_string();
    let (key, public, other) = (file("me.pem"), file("me.pem.pub"), file("other.pem"));
    let soaked = run(
        &store,
        &[
            "soak",
            "--agents",
            "50",
            "--think",
            "20ms..50ms",
            "--delay",
            "1ms..5ms",
            "--duration",
            "2s",
            "--gate",
            "outcomes",
            "--progress",
            "none",
        ],
    );
    assert_eq!(code(&soaked), 0, "{}", text(&soaked.stderr));
    assert_eq!(code(&run(&store, &["certify", "--new-key", &key])), 0);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let again = run(&store, &["certify", "--new-key", &key]);
    assert!(
        code(&again) == 1 && text(&again.stderr).contains("nothing is overwritten"),
        "{}",
        text(&again.stderr)
    );

    // A run of two seconds is no run of 72 hours; the certificate says so, and is issued.
    let junit = file("gates.xml");
    let issued = run(&store, &["certify", "@last", "--key", &key, "--junit", &junit, "--github"]);
    let shown = text(&issued.stdout);
    assert_eq!(code(&issued), 4, "{shown}\n{}", text(&issued.stderr));
    assert!(shown.contains("INCONCLUSIVE") && shown.contains("of the 259200 s"), "{shown}");
    assert!(shown.contains("::warning title=chaos-recovery::"), "{shown}");
    assert!(fs::read_to_string(&junit).unwrap().contains("<error"));
    let verified = run(&store, &["verify", "@last", "--key", &public]);
    assert_eq!(code(&verified), 4, "{}", text(&verified.stdout));

    let policy = file("short.toml");
    let short = "name = \"short\"\nversion = 1\nabout = \"two seconds\"\n[[run]]\nname = \"soak\"\nseconds_min = 1\nagents_min = 50\n[[gate]]\nid = \"sum\"\nrun = \"soak\"\nrequire = \"outcomes\"\n";
    fs::write(&policy, short).unwrap();
    let go = run(&store, &["certify", "@last", "--policy", &policy, "--key", &key]);
    assert_eq!(code(&go), 0, "{}\n{}", text(&go.stdout), text(&go.stderr));
    let verified = run(&store, &["verify", "@last", "--key", &public]);
    assert!(
        code(&verified) == 0 && text(&verified.stdout).contains("GO"),
        "{}",
        text(&verified.stdout)
    );
    others_agree(&only_run(&store), &public, scratch.path());

    assert_eq!(code(&run(&store, &["certify", "--new-key", &other])), 0);
    let wrong = run(&store, &["verify", "@last", "--key", &format!("{other}.pub")]);
    assert!(
        code(&wrong) == 6 && text(&wrong.stdout).contains("NOT VERIFIED"),
        "{}",
        text(&wrong.stdout)
    );
    let plan = only_run(&store).join("host.json");
    fs::write(&plan, [&fs::read(&plan).unwrap(), " ".as_bytes()].concat()).unwrap();
    let changed = run(&store, &["verify", "@last", "--key", &public]);
    assert!(
        code(&changed) == 6 && text(&changed.stdout).contains("soak/host.json"),
        "{}",
        text(&changed.stdout)
    );
    refusals(&store, &public);
}

fn refusals(store: &Path, public: &str) {
    for (args, part) in [
        (vec!["certify", "@last", "--policy", "nothing"], "no policy"),
        (vec!["certify", "@last", "--key", public], "not an Ed25519 private key"),
        (vec!["certify", "@last", "--run", "other=@last"], "asks for no run"),
        (vec!["certify", "@last", "--run", "soak=@last"], "given twice"),
        (vec!["verify", "@last", "--key", "/nonexistent"], "--new-key"),
    ] {
        let refused = run(store, &args);
        let said = text(&refused.stderr);
        assert!(
            code(&refused) != 0 && said.contains(part) && said.contains("remedy:"),
            "{args:?}: {said}"
        );
    }
}

/// openssl checks the signature over DSSE's encoding; securesystemslib, where it is installed, the envelope.
fn others_agree(dir: &Path, public: &str, scratch: &Path) {
    const SPLIT: &str = "import json,base64,sys\n\
        e=json.load(open(sys.argv[1]))\n\
        p=base64.b64decode(e['payload'])\n\
        t=e['payloadType'].encode()\n\
        open(sys.argv[2],'wb').write(b'DSSEv1 %d %s %d %s' % (len(t),t,len(p),p))\n\
        open(sys.argv[3],'wb').write(base64.b64decode(e['signatures'][0]['sig']))\n";
    const SECURE: &str = "import json,sys\n\
        try:\n\
        \x20from securesystemslib.dsse import Envelope\n\
        \x20from securesystemslib.signer import SSlibKey\n\
        \x20from cryptography.hazmat.primitives.serialization import load_pem_public_key\n\
        except ImportError as e:\n\
        \x20print('absent', e); sys.exit(0)\n\
        e=json.load(open(sys.argv[1]))\n\
        k=SSlibKey.from_crypto(load_pem_public_key(open(sys.argv[2],'rb').read()), e['signatures'][0]['keyid'])\n\
        print('verified', len(Envelope.from_dict(e).verify([k],1)))\n";
    let path = |name: &str| scratch.join(name).display().to_string();
    let certificate = dir.join("certificate.dsse.json").display().to_string();
    let (signed, signature) = (path("signed"), path("signature"));
    // What reads our exports, with libraries of its own: an absent one fails then (.ci/consumers).
    let required = std::env::var_os("TAILBEAM_REQUIRE_CONSUMERS").is_some();
    let consumers = std::env::var_os("TAILBEAM_CONSUMERS").map(PathBuf::from);
    let interpreter = consumers.map(|place| place.join("py/bin/python")).filter(|it| it.exists());
    let interpreter = interpreter.unwrap_or_else(|| "python3".into());
    let python = |script: &str, args: &[&str]| {
        Command::new(&interpreter).args(["-c", script]).args(args).output()
    };
    let Ok(split) = python(SPLIT, &[&certificate, &signed, &signature]) else {
        assert!(!required, "python3 is required and not here");
        println!("python3 is not here: the signature was checked by ourselves only");
        return;
    };
    assert!(split.status.success(), "{}", text(&split.stderr));
    let openssl = Command::new("openssl")
        .args([
            "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", &signed, "-sigfile",
            &signature,
        ])
        .output();
    match openssl {
        Ok(output) => assert!(
            text(&output.stdout).contains("Verified Successfully"),
            "{}{}",
            text(&output.stdout),
            text(&output.stderr)
        ),
        Err(error) => {
            assert!(!required, "openssl is required and not here: {error}");
            println!("openssl is not here ({error})");
        }
    }
    let secure = python(SECURE, &[&certificate, public]).unwrap();
    let said = text(&secure.stdout);
    assert!(
        said.starts_with("verified 1") || (said.starts_with("absent") && !required),
        "{said}{}",
        text(&secure.stderr)
    );
    println!("securesystemslib: {said}");
}
