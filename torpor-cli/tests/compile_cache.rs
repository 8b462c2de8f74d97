//! NVRTC and nvJitLink of PyTorch's wheels as clients: what they made once comes out of the cache, the same bytes, and never anything
//! else.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Sets of options of which the ones after the first are told to one of the two stages alone, or change what is made.
const OPTIONS: &str = "-arch=sm_90a;-arch=sm_90a -ftz=true;-arch=sm_90a -use_fast_math;-arch=sm_90a -fmad=false;\
    -arch=sm_90a -maxrregcount=16;-arch=sm_90a -lineinfo;-arch=sm_90a -Xptxas -O1;-arch=compute_90;-arch=sm_80;\
    -arch=sm_90a -no-cache;-arch=sm_90a -DDEPTH=broken";

/// The same for nvJitLink, of LTO-IR and of PTX.
const LINK_OPTIONS: &str = "-arch=sm_90 -lto;-arch=sm_90 -lto -ftz=1;-arch=sm_90 -lto -prec-div=0;-arch=sm_90 -lto -fma=0;\
    -arch=sm_90 -lto -prec-sqrt=0;-arch=sm_90 -lto -O0;-arch=sm_90 -lto -Xptxas=-O1;-arch=sm_90 -lto -Xnvvm=-opt=0;\
    -arch=sm_90 -lto -maxrregcount=16;-arch=sm_90 -lto -lineinfo;-arch=sm_90 -lto -g;-arch=sm_90 -lto -ptx;\
    -arch=sm_90 -lto -ptx -ftz=1;-arch=sm_90 -lto -kernels-used=kernel;-arch=sm_90 -lto -split-compile=2;\
    -arch=sm_90 -lto -no-cache;-arch=sm_90;-arch=sm_90 -Xptxas=-O0;-arch=sm_90 -maxrregcount=16;-arch=sm_90a -lto;\
    -arch=sm_100 -lto";

/// A place for the cache, and a log of the process that used it last.
struct Machine {
    home: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Compiles or links in a new process.
    fn start(&self, script: &str, options: &str, log: &str, settings: &[(&str, &str)]) -> Child {
        let mut command = support::torpor(self.home.path());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvrtc").join(script);
        command.args(["run", "--private", "--driver", "simulated", "--"]).arg(support::torch_python());
        command.arg(script).arg(options).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in ["CUDA_CACHE_DISABLE", "CUDA_CACHE_PATH", "CUDA_CACHE_MAXSIZE"] {
            command.env_remove(name);
        }
        command
            .env("HOME", self.home.path())
            .env("TORPOR_SHIM_LOG", self.path(log))
            .env("TORPOR_LOG", "trace");
        command.envs(settings.iter().copied()).spawn().unwrap()
    }

    /// What is printed, how many results were found and how many were not.
    fn end(&self, process: Child, log: &str) -> (String, usize, usize) {
        let Output { status, stdout, stderr } = process.wait_with_output().unwrap();
        assert!(status.success(), "{status} {}", String::from_utf8_lossy(&stderr));
        let said = fs::read_to_string(self.path(log)).unwrap();
        fs::remove_file(self.path(log)).unwrap();
        let count = |what: &str| said.lines().filter(|line| line.contains(what)).count();
        (String::from_utf8(stdout).unwrap(), count("compile cache: found"), count("compile cache: no "))
    }

    fn compile(&self, options: &str, settings: &[(&str, &str)]) -> (String, usize, usize) {
        self.end(self.start("compile.py", options, "shim.log", settings), "shim.log")
    }

    fn link(&self, options: &str, settings: &[(&str, &str)]) -> (String, usize, usize) {
        self.end(self.start("link.py", options, "shim.log", settings), "shim.log")
    }

    /// Has cuDNN attend, whose kernels are compiled and not run.
    fn attend(&self, lengths: &str) -> (String, usize, usize) {
        self.end(
            self.start("attention.py", lengths, "shim.log", &[("TORPOR_SIMGPU_CUBINS", "skip")]),
            "shim.log",
        )
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let files =
            fs::read_dir(self.path(folder)).map(|files| files.map(|file| file.unwrap().path()).collect());
        files.unwrap_or_default()
    }
}

const USUAL: &str = ".nv/ComputeCache/torpor";

#[test]
fn every_set_of_options_gives_the_bytes_that_it_gives_without_a_cache() {
    let machine = Machine::new();
    let (uncached, found, _) = machine.compile(OPTIONS, &[("CUDA_CACHE_DISABLE", "1")]);
    assert_eq!((found, machine.files(USUAL).len()), (0, 0), "it is switched off");
    let (first, shared, missed) = machine.compile(OPTIONS, &[]);
    assert!(missed > 10 && machine.files(USUAL).len() >= missed, "{missed}");
    let (second, found, missed_again) = machine.compile(OPTIONS, &[]);
    assert_eq!((missed_again, found), (0, missed + shared), "another process finds all");
    assert_eq!(uncached, first);
    assert_eq!(uncached, second);
    let distinct: std::collections::HashSet<_> =
        first.lines().filter_map(|line| line.split_whitespace().rev().nth(2)).collect();
    assert!(distinct.len() >= 7, "the sets of options differ in what is made of them: {first}");
}

#[test]
fn every_link_gives_the_bytes_that_it_gives_without_a_cache() {
    let machine = Machine::new();
    let (uncached, found, _) = machine.link(LINK_OPTIONS, &[("CUDA_CACHE_DISABLE", "1")]);
    assert_eq!((found, machine.files(USUAL).len()), (0, 0), "it is switched off");
    let (first, _, missed) = machine.link(LINK_OPTIONS, &[]);
    assert!(missed > 10 && machine.files(USUAL).len() > 10, "{missed}");
    let (second, found, missed_again) = machine.link(LINK_OPTIONS, &[]);
    assert_eq!(missed_again, 0, "another process finds all");
    assert!(found > 10, "{found}");
    assert_eq!(uncached, first);
    assert_eq!(uncached, second);
    let threads = [("THREADS", "4")];
    assert_eq!(machine.link(LINK_OPTIONS, &threads), (uncached.clone(), found, 0));
    let distinct: std::collections::HashSet<_> =
        uncached.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert!(distinct.len() >= 10, "the sets of options differ in what is made of them: {uncached}");
}

#[test]
fn cudnn_compiles_a_source_once_whatever_the_lengths_are_that_it_compiles_it_for() {
    let [machine, other] = [Machine::new(), Machine::new()];
    // The second and the third have the same source. Of each one that is new the program is looked for, and its two stages.
    assert_eq!(machine.attend("128;189;250"), ("3\n".to_owned(), 1, 6));
    assert_eq!(machine.attend("128;189;250;200"), ("4\n".to_owned(), 4, 0), "another process finds all");
    assert_eq!(other.attend("250;128"), ("2\n".to_owned(), 0, 6));
    let contents = |machine: &Machine| -> std::collections::BTreeMap<_, _> {
        let of = |file: PathBuf| (file.file_name().unwrap().to_owned(), fs::read(&file).unwrap());
        machine.files(USUAL).into_iter().map(of).collect()
    };
    assert!(contents(&machine) == contents(&other), "what is made depends on nothing else");
}

#[test]
fn threads_and_processes_may_fill_one_cache_at_once() {
    let machine = Machine::new();
    let options = [OPTIONS, OPTIONS].join(";");
    let (alone, ..) = machine.compile(&options, &[("CUDA_CACHE_DISABLE", "1")]);
    let threads = [("THREADS", "4")];
    let processes =
        ["one.log", "other.log"].map(|log| (machine.start("compile.py", &options, log, &threads), log));
    for (process, log) in processes {
        assert_eq!(machine.end(process, log).0, alone);
    }
    assert!(machine.files(USUAL).iter().all(|file| file.extension().is_none()), "nothing unfinished is left");
    assert_eq!(machine.compile(&options, &[]).2, 0);
}

#[test]
fn damaged_files_are_not_used() {
    let machine = Machine::new();
    let options = "-arch=sm_90a;-arch=compute_90";
    let (right, _, missed) = machine.compile(options, &[]);
    for (index, file) in machine.files(USUAL).iter().enumerate() {
        let mut bytes = fs::read(file).unwrap();
        let at = bytes.len() / (index + 2);
        bytes[at] ^= 0x10;
        if index == 0 {
            bytes.truncate(at);
        }
        fs::write(file, bytes).unwrap();
    }
    assert_eq!(machine.compile(options, &[]), (right.clone(), 0, missed));
    assert_eq!(machine.compile(options, &[]), (right, missed, 0), "what was damaged was replaced");
}

#[test]
fn the_place_and_the_size_are_those_of_cudas_variables() {
    let machine = Machine::new();
    let elsewhere = machine.path("elsewhere");
    let place = [("CUDA_CACHE_PATH", elsewhere.to_str().unwrap())];
    let (_, _, missed) = machine.compile(OPTIONS, &place);
    assert!(machine.files(USUAL).is_empty() && machine.files("elsewhere/torpor").len() == missed);
    let size = |files: Vec<PathBuf>| files.iter().map(|file| fs::metadata(file).unwrap().len()).sum::<u64>();
    assert!(size(machine.files("elsewhere/torpor")) > 40_000);
    machine.compile("-arch=sm_75", &[place[0], ("CUDA_CACHE_MAXSIZE", "40000")]);
    let left = machine.files("elsewhere/torpor");
    assert!(!left.is_empty() && size(left) <= 40_000);
}

#[test]
fn without_a_writable_place_a_process_has_its_own_results() {
    let machine = Machine::new();
    // Nobody, not even root, makes folders in /proc.
    for home in ["/proc", ""] {
        let (printed, found, missed) = machine.compile("-arch=sm_90a;-arch=sm_90a", &[("HOME", home)]);
        assert_eq!((found, missed), (2, 2), "HOME={home}");
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines[0], lines[1]);
    }
}

#[test]
fn a_place_that_can_only_be_read_is_read() {
    // As a folder that an operator filled and mounts into containers. Root may write everywhere but where nobody may.
    let machine = Machine::new();
    let (right, _, missed) = machine.compile("-arch=sm_90a", &[]);
    let immutable = Command::new("chattr").arg("+i").arg(machine.path(USUAL)).status();
    let unlock = || Command::new("chattr").arg("-i").arg(machine.path(USUAL)).status();
    let (printed, found, missed_now) = machine.compile("-arch=sm_90a;-arch=sm_80;-arch=sm_80", &[]);
    if immutable.is_ok_and(|status| status.success()) {
        unlock().unwrap();
        assert_eq!(machine.files(USUAL).len(), missed);
    }
    assert!(printed.starts_with(&right));
    assert_eq!((found, missed_now), (missed + 2, 2));
}
