//! Files that are made and deleted beside the state directory, as a build or a `git checkout` does.
//!
//! ext4 without a journal does not reuse an inode for one to six minutes after its file was deleted, and looks at each
//! such inode in its group (8,192 in most file systems) whenever a file is created. A launcher that creates a file pays
//! for that, so the benchmark measures in such a place. Other file systems may show no effect, and the output says so.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::measure::{median, stop_if_interrupted};

/// Made and deleted.
const FILES: u32 = 20_000;
/// Made before those, and kept: so the others do not just fill the gaps in a group that is nearly full.
const KEPT: u32 = 10_000;
const FILES_IN_DIRECTORY: u32 = 200;
/// The effect may be gone after a minute.
const REFRESH: Duration = Duration::from_secs(40);
/// ext4 compares whole seconds: what was deleted in the current one does not count yet.
const SETTLE: Duration = Duration::from_millis(1_100);
/// Files that are created to learn how long that takes.
const PROBES: usize = 50;

pub struct Deletions {
    /// In which all files are made.
    directory: PathBuf,
    /// In which detach makes its logs.
    logs: PathBuf,
    latest: Instant,
    times: u32,
}

impl Deletions {
    /// Makes and deletes the files in `directory`, where the state directories are, and prints a line about it.
    pub fn new(directory: &Path, logs: &Path) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(logs)?;
        let mut new =
            Self { directory: directory.join("tree"), logs: logs.to_owned(), latest: Instant::now(), times: 0 };
        let before = new.time_creation()?;
        make_files(&directory.join("kept"), KEPT)?;
        new.repeat()?;
        let after = new.time_creation()?;
        println!(
            "Just before the measurement, {FILES} files were created and deleted beside the state directories, and \
             {KEPT} were kept. Creating a file among the logs took {} µs before and {} µs after (medians).",
            before.as_micros(),
            after.as_micros(),
        );
        Ok(new)
    }

    /// Makes and deletes the files, unless that was done a moment ago.
    pub fn refresh(&mut self) -> Result<()> {
        if self.latest.elapsed() < REFRESH { Ok(()) } else { self.repeat() }
    }

    /// Makes and deletes the files.
    pub fn repeat(&mut self) -> Result<()> {
        make_files(&self.directory, FILES)?;
        fs::remove_dir_all(&self.directory)?;
        sleep(SETTLE);
        self.latest = Instant::now();
        self.times += 1;
        Ok(())
    }

    /// How long it takes to create a file among the logs. The files stay, since deleting them would add to the effect.
    fn time_creation(&self) -> Result<Duration> {
        let present = fs::read_dir(&self.logs)?.count();
        let mut times = Vec::new();
        for index in present..present + PROBES {
            let path = self.logs.join(format!("probe-{index}"));
            let begin = Instant::now();
            let file = File::create_new(path)?;
            times.push(begin.elapsed());
            drop(file);
        }
        Ok(median(&times))
    }

    /// Prints whether the effect lasts.
    pub fn print_effect(&self) -> Result<()> {
        let (now, times) = (self.time_creation()?, self.times);
        println!("\nCreating a file among the logs now takes {} µs (deletions so far: {times}).", now.as_micros());
        Ok(())
    }
}

fn make_files(directory: &Path, count: u32) -> Result<()> {
    for index in 0..count {
        stop_if_interrupted()?;
        let directory = directory.join(format!("directory-{}", index / FILES_IN_DIRECTORY));
        if index % FILES_IN_DIRECTORY == 0 {
            fs::create_dir_all(&directory)?;
        }
        File::create_new(directory.join(format!("file-{index}")))?.write_all(b"what a compiler has written\n")?;
    }
    Ok(())
}
