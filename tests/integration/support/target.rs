//! Programs that detach lets go of: `target.c`, which counts what it has done and notices what went wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::process::Process;
use super::sandbox::Sandbox;
use super::terminal::Terminal;
use super::wait::{await_result, eventually};

/// The program, a static one. Requires cc.
pub fn target() -> &'static Path {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    TARGET.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/support/target.c");
        let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (new, program) = (place.join(format!("target.{}", std::process::id())), place.join("target"));
        let status = Command::new("cc").args(["-O1", "-static", "-pthread", "-o"]).args([&new, &source]).status();
        assert!(status.unwrap().success());
        // Other users run it as well.
        fs::rename(new, &program).unwrap();
        program
    })
}

/// One that runs.
pub struct Target {
    pub process: Process,
    board: PathBuf,
}

/// What it has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    pub blocks: u64,
    pub wrong: u64,
    pub sent: u64,
    pub got: u64,
}

impl Target {
    /// Starts `kind` in the background of a terminal in which a shell runs, and waits until it works.
    #[track_caller]
    pub fn start(sandbox: &Sandbox, terminal: &mut Terminal, kind: &str) -> Self {
        let board = sandbox.work(format!("board.{kind}"));
        let _ = fs::remove_file(&board);
        let tty = terminal.name();
        let command = format!("{} {kind} {} {}", target().display(), board.display(), tty.display());
        let target = Self { process: terminal.background(&command), board };
        eventually(|| target.board().blocks > 0);
        target
    }

    /// One that was started in another way.
    pub fn of(process: Process, board: PathBuf) -> Self {
        Self { process, board }
    }

    pub fn board(&self) -> Board {
        let bytes = fs::read(&self.board).unwrap_or_default();
        let number = |place: usize| {
            bytes.get(place * 8..place * 8 + 8).map_or(0, |it| u64::from_ne_bytes(it.try_into().unwrap()))
        };
        Board { blocks: number(0), wrong: number(1), sent: number(2), got: number(3) }
    }

    /// Waits until it has done so many more blocks, all of them right.
    #[track_caller]
    pub fn await_blocks(&self, count: u64) {
        let before = self.board().blocks;
        await_result(|| {
            let board = self.board();
            if board.blocks >= before + count { Ok(()) } else { Err(format!("{board:?} of {:?}", self.process)) }
        });
        assert_eq!(self.board().wrong, 0, "{:?}", self.process);
    }

    /// No more signals are queued.
    pub fn silence(&self) {
        use std::os::unix::fs::FileExt;
        fs::File::options().write(true).open(&self.board).unwrap().write_all_at(&1_u64.to_ne_bytes(), 32).unwrap();
    }
}
