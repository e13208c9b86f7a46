//! `record --heap` on programs in C and C++ that say themselves what they leave behind.

use crate::planted::{Bench, Planted, listed, planted, snapshot, source};

/// Every case of a program: what it planted is listed with its bytes and site, once per block; the clean
/// twin lists nothing of that site.
fn all_cases(name: &str, flags: &[&str], skip: &[&str]) {
    let Some(bench) = Bench::new() else { return };
    let program = bench.compile(&source(name), flags);
    let cases = bench.lines(&program);
    assert!(cases.len() > 5, "{cases:?}");
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| !skip.contains(&case.as_str())) {
        let (said, listed) = bench.exact(&program, &[case]);
        wrong
            .extend(said.iter().filter_map(|planted| {
                planted.check(&listed).err().map(|e| format!("{case}: {e}"))
            }));
        assert!(!said.is_empty(), "{case} says nothing");
        let (freed, listed) = bench.exact(&program, &[case, "clean"]);
        assert_eq!(freed.len(), said.len(), "{case}");
        for twin in freed {
            let left = listed.iter().filter(|(_, site)| site.contains(&twin.site)).count();
            if left > 0 {
                wrong.push(format!("{case} clean: {left} blocks of {}", twin.site));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn blocks_are_listed_wherever_their_last_pointer_was() {
    all_cases("lsan_cases.c", &["-O1", "-g", "-pthread"], &["forked"]);
}

#[test]
fn blocks_are_listed_however_they_hold_each_other() {
    all_cases("memcheck_cases.c", &["-O2", "-g", "-fomit-frame-pointer"], &[]);
}

#[test]
fn operator_new_is_listed_like_malloc() {
    all_cases("cxx_cases.cc", &["-O1", "-g", "-std=c++17", "-pthread", "-fno-builtin"], &[]);
}

#[test]
fn the_check_sees_a_missing_block_and_a_wrong_size() {
    let planted = Planted { bytes: 10, count: 2, site: "site_x".to_owned(), process: None };
    let block = |bytes| (bytes, vec!["malloc".to_owned(), "site_x".to_owned()]);
    assert_eq!(planted.check(&[block(10), block(10)]), Ok(()));
    assert!(planted.check(&[block(10)]).is_err());
    assert!(planted.check(&[block(10), block(11)]).is_err());
    assert!(planted.check(&[block(10), block(10), block(10)]).is_err());
    assert!(planted.check(&[(10, vec!["site_y".to_owned()]), block(10)]).is_err());
}

/// The child's blocks are in the child's file, the parent's in both: the child was born with them.
#[test]
fn a_forked_child_has_a_file_of_its_own() {
    let Some(bench) = Bench::new() else { return };
    let program = bench.compile(&source("lsan_cases.c"), &["-O1", "-g", "-pthread"]);
    for twin in ["leak", "clean"] {
        let (output, run) = bench.record(&["--exact"], &program, &["forked", twin]);
        let said = planted(&output);
        let child = said.iter().find(|planted| planted.process.is_some()).unwrap();
        let parent = said.iter().find(|planted| planted.process.is_none()).unwrap();
        let of_child = run.join(format!("heap-{}.tbh", child.process.unwrap()));
        let of_child = listed(&snapshot(&of_child), &program);
        let of_parent = listed(&snapshot(&run.join("heap.tbh")), &program);
        for (planted, blocks) in [(child, &of_child), (parent, &of_child), (parent, &of_parent)] {
            // The clean twins of both processes free all: count 0 of bytes 0.
            assert_eq!(planted.check(blocks), Ok(()), "{twin}");
        }
        let strange = of_parent.iter().filter(|(_, site)| site.contains(&child.site)).count();
        assert_eq!(strange, 0, "the parent's file has blocks of the child");
    }
}
