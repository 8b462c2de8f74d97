//! What a shell and `man` are told of the command line.

use std::process::Command;

fn torpor(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_torpor")).args(arguments).output().unwrap()
}

#[test]
fn shells_complete_verbs_and_flags() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef torpor"), ("fish", "complete -c torpor")]
    {
        let done = torpor(&["completion", shell]);
        let script = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success() && script.contains(word), "{shell}");
        for known in ["load-test", "functions", "gpu-limit"] {
            assert!(script.contains(known), "{shell}: {known}");
        }
    }
    // Bash itself takes what it is given.
    let bash = Command::new("bash")
        .args(["-c", "source <(\"$0\" completion bash) && complete -p torpor", env!("CARGO_BIN_EXE_torpor")])
        .output()
        .unwrap();
    assert!(bash.status.success(), "{bash:?}");
}

#[test]
fn there_is_a_page_for_each_verb() {
    let directory = tempfile::tempdir().unwrap();
    let done = torpor(&["manual", directory.path().to_str().unwrap()]);
    assert!(done.status.success(), "{done:?}");
    for (page, words) in
        [("torpor.1", "Exit codes"), ("torpor-serve.1", "gpu\\-limit"), ("torpor-top.1", "once")]
    {
        let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.contains(".TH ") && text.contains(words), "{page}: {text}");
    }
    let missing = torpor(&["manual", "/nowhere"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere"), "{missing:?}");
}
