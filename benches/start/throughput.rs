//! Starts per second: one caller, and two at once.
//!
//! Short slices in turn, as in `measure`. The jobs of a slice are reaped after it.

use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::deletions::Deletions;
use crate::launchers::Launcher;
use crate::measure::{Shuffle, median, reap_all, run_once};

/// Short and few: each file that is created uses up one of the deleted inodes (see `deletions`).
const SLICE: Duration = Duration::from_millis(200);
const SLICES: usize = 5;
pub const CALLERS: [usize; 2] = [1, 2];

/// A launcher for each of the callers, and how many starts all together made in each slice.
struct Subject {
    callers: Vec<(Launcher, Command)>,
    slices: Vec<u32>,
}

/// The median of the starts per second, for each name and number of callers. `make` is called for each caller, since
/// callers share nothing.
pub fn measure(make: impl Fn() -> Result<Vec<Launcher>>, deletions: &mut Deletions) -> Result<Vec<(String, Vec<u32>)>> {
    let mut subjects = Vec::new();
    for callers in CALLERS {
        let mut columns: Vec<Subject> = Vec::new();
        for _ in 0..callers {
            for (index, launcher) in make()?.into_iter().enumerate() {
                let command = launcher.command(&[])?;
                match columns.get_mut(index) {
                    Some(subject) => subject.callers.push((launcher, command)),
                    None => columns.push(Subject { callers: vec![(launcher, command)], slices: Vec::new() }),
                }
            }
        }
        subjects.append(&mut columns);
    }
    deletions.repeat()?;
    let mut shuffle = Shuffle::new();
    let mut order: Vec<usize> = (0..subjects.len()).collect();
    for _ in 0..SLICES {
        shuffle.shuffle(&mut order);
        for index in &order {
            let Some(subject) = subjects.get_mut(*index) else { continue };
            let rate = run_slice(&mut subject.callers)?;
            subject.slices.push(rate);
            reap_all()?;
        }
    }
    let mut rates: Vec<(String, Vec<u32>)> = Vec::new();
    for subject in &subjects {
        let name = subject.callers.first().map(|(launcher, _)| launcher.name.clone()).unwrap_or_default();
        let rate = median(&subject.slices);
        match rates.iter_mut().find(|(other, _)| *other == name) {
            Some((_, columns)) => columns.push(rate),
            None => rates.push((name, vec![rate])),
        }
    }
    Ok(rates)
}

/// Lets all callers start as often as they can. Returns the starts per second of all together.
fn run_slice(callers: &mut [(Launcher, Command)]) -> Result<u32> {
    let barrier = Barrier::new(callers.len());
    let rates: Vec<Option<f64>> = thread::scope(|scope| {
        let threads: Vec<_> = callers
            .iter_mut()
            .map(|(launcher, command)| {
                scope.spawn(|| {
                    barrier.wait();
                    start_repeatedly(launcher, command).ok()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().ok().flatten()).collect()
    });
    let rate: Option<f64> = rates.into_iter().sum();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a few thousand
    Ok(rate.ok_or("a start failed")?.round() as u32)
}

fn start_repeatedly(launcher: &Launcher, command: &mut Command) -> Result<f64> {
    let (begin, mut starts) = (Instant::now(), 0_u32);
    while begin.elapsed() < SLICE {
        run_once(command)?;
        launcher.drain()?;
        starts += 1;
    }
    Ok(f64::from(starts) / begin.elapsed().as_secs_f64())
}
