//! Programs of other people print, write and answer the same with and without us.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::planted::{Bench, PROGRAM, has, skip, snapshot, source};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a program plain and recorded, in both modes: code, stdout and stderr are equal to the byte.
fn same(bench: &Bench, program: &str, args: &[&str]) {
    let plain = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    for flags in [&["--sample", "4KiB"][..], &["--exact"]] {
        let (output, run) = bench.record(flags, Path::new(program), args);
        assert_eq!(output.status, plain.status, "{program} {args:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), text(&plain.stdout), "{program} {args:?}");
        assert_eq!(text(&output.stderr), text(&plain.stderr), "{program} {args:?}");
        let taken = snapshot(&run.join("heap.tbh")).sampler.taken;
        assert!(taken > 10, "{program}: {taken} samples: it was not recorded");
        fs::remove_dir_all(run).unwrap();
    }
}

#[test]
fn git_prints_the_same() {
    let Some(bench) = Bench::new().filter(|_| has("git", "--version")) else { return };
    let dir = bench.dir.path().join("repository");
    fs::create_dir(&dir).unwrap();
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(&dir)
            .args(["-c", "user.name=x", "-c", "user.email=x@example.com"])
            .args(args);
        assert!(command.output().unwrap().status.success(), "{args:?}");
    };
    git(&["init", "-q"]);
    for step in 0..8 {
        for file in 0..20 {
            let line = format!("line of file {file} in step {step}\n");
            fs::write(dir.join(format!("file-{file}")), line.repeat(50 + step * file)).unwrap();
        }
        git(&["add", "."]);
        git(&["commit", "-q", "-m", &format!("step {step}")]);
    }
    let dir = dir.to_str().unwrap();
    same(&bench, "git", &["-C", dir, "log", "-p", "--stat", "--all"]);
    same(&bench, "git", &["-C", dir, "grep", "-n", "step 7"]);
    same(&bench, "git", &["-C", dir, "fsck", "--full"]);
    same(&bench, "git", &["-C", dir, "no-such-command"]);
}

#[test]
fn sqlite_prints_the_same() {
    let Some(bench) = Bench::new().filter(|_| has("sqlite3", "--version")) else { return };
    let script = "create table t(a integer primary key, b text, c real);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
        insert into t select i, printf('text %d', i * 7919 % 10007), i / 7.0 from n;
        create index u on t(b);
        select b, count(*), sum(c), group_concat(a) from t group by b having count(*) > 1 order by 2 desc, 1 limit 500;
        delete from t where a % 3 = 0; vacuum; select count(*), avg(c), max(b) from t;
        select nonsense from t;";
    same(&bench, "sqlite3", &[":memory:", script]);
}

#[test]
fn gcc_writes_the_same_object() {
    let Some(bench) = Bench::new() else { return };
    let (plain, ours) = (bench.dir.path().join("plain.o"), bench.dir.path().join("ours.o"));
    let code = source("cost_real.c");
    let compile = ["-O2", "-c", code.to_str().unwrap(), "-o"];
    let status = Command::new("cc").args(compile).arg(&plain).status().unwrap();
    assert!(status.success());
    let mut args = compile.to_vec();
    args.push(ours.to_str().unwrap());
    let (output, run) = bench.record(&["--sample", "4KiB"], Path::new("cc"), &args);
    assert!(
        output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
    assert_eq!(fs::read(plain).unwrap(), fs::read(ours).unwrap());
    // The driver, the compiler proper and the assembler.
    let states: Vec<PathBuf> = fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "tbh"))
        .collect();
    let commands: Vec<String> = states.iter().map(|path| snapshot(path).command).collect();
    assert!(commands.iter().any(|command| command.contains("cc1")), "{commands:?}");
}

/// Answers of a server that is linked with jemalloc, to the same requests.
fn answers(start: &mut Command, socket: &Path) -> String {
    let mut server = start.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut stream = None;
    for _ in 0..1_000 {
        stream = UnixStream::connect(socket).ok();
        if stream.is_some() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let mut stream = stream.expect("the server answers within 10 s");
    let mut requests = String::new();
    for n in 0..3_000u32 {
        requests += &format!("SET key:{n} {}\r\n", "v".repeat((n * 7 % 900) as usize + 1));
        requests += &format!(
            "RPUSH list:{} {n}\r\nHSET hash:{} f{n} {n}\r\nZADD rank {} m{n}\r\n",
            n % 50,
            n % 20,
            n * 31 % 997
        );
        if n % 3 == 0 {
            requests +=
                &format!("DEL key:{}\r\nGET key:{}\r\nSTRLEN key:{}\r\n", n / 2, n / 3, n / 4);
        }
    }
    requests += "SORT list:7 DESC\r\nLRANGE list:3 0 -1\r\nHLEN hash:4\r\nZRANGE rank 0 100 WITHSCORES\r\nDBSIZE\r\nNONSENSE\r\nQUIT\r\n";
    let mut writer = stream.try_clone().unwrap();
    let sent = std::thread::spawn(move || writer.write_all(requests.as_bytes()).unwrap());
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    sent.join().unwrap();
    let mut last = UnixStream::connect(socket).unwrap();
    last.write_all(b"SHUTDOWN NOSAVE\r\n").unwrap();
    assert!(server.wait().unwrap().success());
    answers
}

#[test]
fn redis_answers_the_same() {
    let Some(bench) = Bench::new().filter(|_| has("redis-server", "--version")) else { return };
    let dir = bench.dir.path();
    let socket = dir.join("socket");
    let options = [
        "--port",
        "0",
        "--save",
        "",
        "--appendonly",
        "no",
        "--unixsocket",
        socket.to_str().unwrap(),
        "--dir",
        dir.to_str().unwrap(),
    ];
    let plain = answers(Command::new("redis-server").args(options), &socket);
    let store = dir.join("store");
    let mut command = Command::new(PROGRAM);
    command
        .arg("--store")
        .arg(&store)
        .args(["record", "--heap", "-q", "--sample", "4KiB", "--", "redis-server"])
        .args(options);
    let ours = answers(&mut command, &socket);
    assert!(plain.lines().count() > 9_000, "{}", plain.lines().count());
    assert_eq!(plain, ours);
    let run = fs::read_dir(store).unwrap().next().unwrap().unwrap().path();
    let state = snapshot(&run.join("heap.tbh"));
    assert!(state.sampler.taken > 100, "{:?}", state.sampler);
}

#[test]
fn a_python_extension_that_leaks_is_named() {
    let Some(bench) = Bench::new() else { return };
    let python = "/usr/bin/python3";
    let paths = ["-c", "import sysconfig; print(sysconfig.get_paths()['include'])"];
    let include = Command::new(python)
        .args(paths)
        .output()
        .ok()
        .map(|output| text(&output.stdout).trim().to_owned());
    let Some(include) = include.filter(|dir| Path::new(dir).join("Python.h").exists()) else {
        return skip("/usr/bin/python3 or its Python.h is not here");
    };
    let module = bench.dir.path().join("leaky.so");
    let built = Command::new("cc")
        .args(["-O2", "-g", "-shared", "-fPIC", "-I", &include, "-o"])
        .arg(&module)
        .arg(source("leaky.c"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    let script = format!(
        "import sys; sys.path.insert(0, {:?}); import leaky, json
for i in range(400):
    leaky.grow(50); leaky.work(500); x = json.loads(json.dumps([str(j) for j in range(200)]))
print(len(x), sum(map(int, x)))",
        bench.dir.path().to_str().unwrap()
    );
    let plain = Command::new(python).args(["-c", &script]).output().unwrap();
    let (output, run) = bench.record(&["--sample", "64KiB"], Path::new(python), &["-c", &script]);
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        (text(&plain.stdout), text(&plain.stderr))
    );
    // 20 MB by one function: 305 samples expected, sigma 17.
    let state = snapshot(&run.join("heap.tbh"));
    let listed = crate::planted::listed(&state, &module);
    let of_site = listed
        .iter()
        .zip(&state.samples)
        .filter(|((_, site), _)| site.first().is_some_and(|name| name == "leaky_block"));
    let bytes: f64 = of_site.clone().map(|(_, sample)| sample.weight).sum();
    assert!((15e6..25e6).contains(&bytes), "{bytes}");
    // Python's own frames are on the stack below it.
    let stack = of_site
        .map(|(_, sample)| sample.site)
        .next()
        .and_then(|id| state.sites.iter().find(|site| site.id == id));
    assert!(stack.is_some_and(|site| site.frames.len() > 5), "{stack:?}");
}
