use super::*;

fn session(existing: Existing) -> Session {
    Session { existing, quiet: true, ..Session::on(burn::tensor::Device::flex()) }
}

fn rows(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{{\"prompt\":\"{name}\"}}")).collect()
}

#[test]
fn a_file_cut_at_any_byte_is_completed_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("no/such/rows.jsonl");
    let identity = json!({"setpoint_partial": 1, "settings": {"seed": 1}});
    let blocks = [rows(&["a", "b"]), rows(&[]), rows(&["ü"]), rows(&["d", "e", "f"])];
    let write = |existing: Existing| {
        let mut file = PartialRows::open(&session(existing), &target, &identity).unwrap();
        let (begin, mut lines) = (file.done(), file.lines().len());
        for (i, block) in blocks.iter().enumerate().skip(begin) {
            lines += block.len();
            file.push(block, i + 1, &[lines]).unwrap();
        }
        assert_eq!(file.finish().unwrap(), 6);
        begin
    };
    write(Existing::Refuse);
    let whole = std::fs::read(&target).unwrap();
    assert_eq!(String::from_utf8_lossy(&whole).lines().collect::<Vec<_>>(), rows(&["a", "b", "ü", "d", "e", "f"]));
    // The partial file as it was before it became the whole one.
    std::fs::remove_file(&target).unwrap();
    let mut file = PartialRows::open(&session(Existing::Refuse), &target, &identity).unwrap();
    blocks.iter().enumerate().for_each(|(i, block)| file.push(block, i + 1, &[i]).unwrap());
    drop(file);
    let partial = std::fs::read(partial_path(&target)).unwrap();
    let mut begins = std::collections::BTreeSet::new();
    for length in 0..=partial.len() {
        let _ = std::fs::remove_file(&target);
        std::fs::write(partial_path(&target), &partial[..length]).unwrap();
        begins.insert(write(Existing::Continue));
        assert!(std::fs::read(&target).unwrap() == whole, "cut at {length}");
        assert!(!partial_path(&target).exists());
    }
    assert_eq!(begins.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn what_differs_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("rows.jsonl");
    let identity = |seed: u64, data: &str| json!({"setpoint_partial": 1, "inputs": {"data": data, "model": "m"}, "settings": {"generate": {"seed": seed}}});
    let mut file = PartialRows::open(&session(Existing::Refuse), &target, &identity(1, "x")).unwrap();
    file.push(&rows(&["a"]), 1, &[]).unwrap();
    drop(file);
    let differs = |seed, data| {
        PartialRows::open(&session(Existing::Continue), &target, &identity(seed, data)).err().map(|f| f.to_string())
    };
    assert_eq!(differs(1, "x"), None);
    let text = differs(2, "y").unwrap();
    assert!(text.contains("`generate.seed` was 1 and is 2") && text.contains("the data changed"), "{text}");
    assert!(!text.contains("model"), "{text}");
}

#[test]
fn an_output_is_neither_replaced_nor_continued_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, begun, new) = (dir.path().join("whole"), dir.path().join("begun"), dir.path().join("new"));
    std::fs::write(&whole, "").unwrap();
    let header = format!("{PARTIAL_START}1}}");
    std::fs::write(partial_path(&begun), format!("{header}\n{{}}\n{DONE}1,\"tally\":[]}}\n")).unwrap();
    // One that was interrupted before its first row.
    std::fs::write(partial_path(&new), format!("{header}\n{{\"prom")).unwrap();
    let refused = |existing, path: &Path| check(&session(existing), Some(path)).is_err();
    assert_eq!([&whole, &begun, &new].map(|path| refused(Existing::Refuse, path)), [true, true, false]);
    assert_eq!([&whole, &begun, &new].map(|path| refused(Existing::Overwrite, path)), [false, false, false]);
    assert_eq!([&whole, &begun, &new].map(|path| refused(Existing::Continue, path)), [true, false, false]);
    assert!(check(&session(Existing::Continue), None).is_err());
}

#[cfg(unix)]
#[test]
fn nothing_that_is_not_of_this_program_is_replaced() {
    use std::os::unix::fs::symlink;

    let dir = tempfile::tempdir().unwrap();
    let [victim, target] = ["victim", "rows.jsonl"].map(|name| dir.path().join(name));
    let identity = json!({"setpoint_partial": 1});
    for place in [partial_path(&target), record_path(&target)] {
        for existing in [Existing::Refuse, Existing::Overwrite, Existing::Continue] {
            std::fs::write(&victim, "keep me").unwrap();
            symlink(&victim, &place).unwrap();
            let refused = check(&session(existing), Some(&target)).unwrap_err().to_string();
            assert!(refused.contains("is a link") && refused.contains("move it away"), "{refused}");
            // A link that leads nowhere would create what it names.
            std::fs::remove_file(&victim).unwrap();
            assert!(check(&session(existing), Some(&target)).is_err());
            std::fs::remove_file(&place).unwrap();
            std::fs::write(&place, "{\"mine\": 1}\n").unwrap();
            let refused = check(&session(existing), Some(&target)).unwrap_err().to_string();
            assert!(refused.contains("a file that Setpoint did not write"), "{refused}");
            std::fs::remove_file(&place).unwrap();
        }
    }
    // One that appears between the check and the rows.
    std::fs::write(&victim, "keep me").unwrap();
    symlink(&victim, partial_path(&target)).unwrap();
    assert!(PartialRows::open(&session(Existing::Overwrite), &target, &identity).is_err());
    std::fs::remove_file(partial_path(&target)).unwrap();
    let mut file = PartialRows::open(&session(Existing::Overwrite), &target, &identity).unwrap();
    symlink(&victim, record_path(&target)).unwrap();
    file.push(&rows(&["a"]), 1, &[]).unwrap();
    file.finish().unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "keep me");
    std::fs::remove_file(record_path(&target)).unwrap();
    // Its own files, whole or cut, are replaced as before.
    let write = || {
        let mut file = PartialRows::open(&session(Existing::Overwrite), &target, &identity).unwrap();
        file.push(&rows(&["a"]), 1, &[]).unwrap();
        file.finish().unwrap();
    };
    write();
    std::fs::write(partial_path(&target), &PARTIAL_START[..9]).unwrap();
    assert!(check(&session(Existing::Overwrite), Some(&target)).is_ok());
    write();
    assert!(record_path(&target).is_file() && !partial_path(&target).exists());
}

#[test]
fn a_full_disk_keeps_the_rows_that_are_written_and_no_others() {
    let hint = |kept| failed("write", Path::new("rows.jsonl"), kept)(ErrorKind::StorageFull.into()).to_string();
    assert!(hint(3).contains("--continue") && !hint(0).contains("--continue"), "{}", hint(0));
}
