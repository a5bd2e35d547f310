//! A thread of another process, held with ptrace(2), that makes system calls for us and then continues as if nothing
//! had happened.
//!
//! The unsafe code of `rescue` is here. Nothing is written to the program of the tracee; its registers and its mask are
//! saved in the `Ledger` before they change, and put back when the `Tracee` is dropped, whatever happened. `procedure`
//! decides which calls are made, and in which order; `processor` knows the registers.

use std::ffi::c_void;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_uint};
use nix::sys::ptrace;
use nix::unistd::Pid;

use crate::rescue::ledger::Ledger;
use crate::rescue::processor::{INSTRUCTION, Registers, WORDS};
use crate::sys::errno;
use crate::sys::mishap;
use crate::sys::signals::SET_SIZE;

/// From linux/ptrace.h: the mask of a thread, as the kernel has it.
const PTRACE_GETSIGMASK: c_uint = 0x420a;
const PTRACE_SETSIGMASK: c_uint = 0x420b;
const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG: c_uint = 0x4211;
const NO_SIGNAL: c_int = 0;
/// The set of registers that proc_pid_stat(5) and core(5) call `NT_PRSTATUS`.
const NT_PRSTATUS: c_int = 1;
/// The largest error number that a system call can return.
const LARGEST_ERRNO: u64 = 4095;
/// With these results, the kernel makes the call again; no program ever sees one. From include/linux/errno.h.
const RESTARTS: [u64; 4] = [512, 513, 514, 516];

/// Why a tracee could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has ended, or was killed meanwhile.
    Gone,
    /// It was stopped, but runs: somebody else has continued it.
    Continued,
    /// ptrace(2) or /proc refused.
    Trace(Errno),
    /// It runs code for another processor, or of 32 bits.
    NotNative,
    /// Its system calls are intercepted: prctl(2), `PR_SET_SYSCALL_USER_DISPATCH`.
    Intercepted,
    /// No instruction that makes a system call is in its memory.
    NoInstruction,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        errno(&error).into()
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        // ptrace(2), and /proc.
        if matches!(errno, Errno::ESRCH | Errno::ENOENT) { Self::Gone } else { Self::Trace(errno) }
    }
}

/// How a tracee has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// `PTRACE_EVENT_STOP`: it was interrupted, or its process has stopped or continues.
    Interrupted,
    /// At the beginning or the end of a system call.
    SystemCall,
    /// This signal is about to be delivered.
    Signal(c_int),
}

/// A thread that is traced, until it is dropped.
pub struct Tracee<'l> {
    thread: Pid,
    memory: File,
    saved: Registers,
    mask: u64,
    /// Where the instruction is that makes a system call.
    instruction: u64,
    /// Whether it is where it was stopped first, not in a system call of ours.
    is_untouched: bool,
    ledger: &'l Ledger,
}

impl<'l> Tracee<'l> {
    /// Takes a thread of a process whose threads are all stopped by SIGSTOP.
    ///
    /// PTRACE_O_EXITKILL is not set: when this process is killed, the kernel lets go of the tracee, which stops again
    /// with its process before it runs another instruction; then the guardian puts it back.
    pub fn seize(process: Pid, thread: Pid, ledger: &'l Ledger) -> Result<Self, Fault> {
        let directory = format!("/proc/{process}/task/{thread}");
        let memory = OpenOptions::new().read(true).write(true).open(format!("{directory}/mem"))?;
        let instruction = find_instruction(&directory, &memory)?;
        hold(thread)?;
        let (saved, mask) = examine(thread).inspect_err(|_| {
            let _ = ptrace::detach(thread, None);
        })?;
        ledger.enter(thread, &saved, mask);
        mishap::pass();
        let tracee = Self { thread, memory, saved, mask, instruction, is_untouched: true, ledger };
        // From here on, dropping it puts everything back. No signal may be delivered while it makes system calls for
        // us.
        set_mask(thread, u64::MAX)?;
        mishap::pass();
        Ok(tracee)
    }

    /// Makes the tracee make a system call. The inner result is that of the call.
    pub fn call(&mut self, number: c_long, arguments: [u64; 6]) -> Result<nix::Result<u64>, Fault> {
        self.is_untouched = false;
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        set_registers(self.thread, &self.saved.with_call(self.instruction, number, arguments))?;
        mishap::pass();
        loop {
            self.resume_until_system_call()?;
            self.resume_until_system_call()?;
            mishap::pass();
            let result = get_registers(self.thread)?.result();
            let number = result.wrapping_neg();
            if RESTARTS.contains(&number) {
                // Interrupted: the kernel makes it again.
                continue;
            }
            let is_error = (1..=LARGEST_ERRNO).contains(&number);
            let error = || Errno::from_raw(c_int::try_from(number).unwrap_or(libc::EINVAL));
            return Ok(if is_error { Err(error()) } else { Ok(result) });
        }
    }

    /// Writes to memory of the tracee that was mapped for us.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        Ok(self.memory.write_all_at(bytes, address)?)
    }

    fn resume_until_system_call(&self) -> Result<(), Fault> {
        let mut signal = NO_SIGNAL;
        loop {
            resume(libc::PTRACE_SYSCALL, self.thread, signal)?;
            mishap::pass();
            match wait(self.thread)? {
                Stop::SystemCall => return Ok(()),
                Stop::Interrupted => signal = NO_SIGNAL,
                // Only SIGSTOP, since all others are blocked. It stops the process, but not its tracee.
                Stop::Signal(pending) => signal = pending,
            }
        }
    }

    /// Puts registers and mask back, and lets go of the thread.
    ///
    /// The last stop must be an interruption, not the end of a system call: only after the former does the kernel look
    /// again whether the call that was interrupted first is to be made again.
    fn put_back(&self) -> Result<(), Fault> {
        if !self.is_untouched {
            ptrace::interrupt(self.thread)?;
            mishap::pass();
            resume(libc::PTRACE_CONT, self.thread, NO_SIGNAL)?;
            mishap::pass();
            await_interruption(self.thread)?;
        }
        restore(self.thread, &self.saved, self.mask)?;
        mishap::pass();
        self.ledger.strike_out();
        mishap::pass();
        ptrace::detach(self.thread, None)?;
        Ok(())
    }
}

impl Drop for Tracee<'_> {
    fn drop(&mut self) {
        // What cannot be put back has ended.
        let _ = self.put_back();
    }
}

/// Becomes the tracer of a thread, and waits until it has stopped.
fn hold(thread: Pid) -> Result<(), Fault> {
    ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD)?;
    mishap::pass();
    ptrace::interrupt(thread)?;
    mishap::pass();
    await_interruption(thread)
}

/// Waits until a thread stops because it was interrupted. A signal that comes first is delivered.
fn await_interruption(thread: Pid) -> Result<(), Fault> {
    loop {
        let signal = match wait(thread)? {
            Stop::Interrupted => return Ok(()),
            Stop::SystemCall => NO_SIGNAL,
            Stop::Signal(pending) => pending,
        };
        resume(libc::PTRACE_CONT, thread, signal)?;
        mishap::pass();
    }
}

/// The registers and the mask of a thread that is held, if it can make system calls for us.
fn examine(thread: Pid) -> Result<(Registers, u64), Fault> {
    let registers = get_registers(thread)?;
    if !registers.is_native() {
        return Err(Fault::NotNative);
    }
    if is_intercepted(thread) {
        return Err(Fault::Intercepted);
    }
    Ok((registers, get_mask(thread)?))
}

/// For the guardian: takes a thread whose tracer has died, and puts its registers and its mask back. EPERM: the tracer
/// is still dying.
pub fn repair(thread: Pid, registers: &Registers, mask: u64) -> Result<(), Fault> {
    hold(thread)?;
    let restored = restore(thread, registers, mask);
    ptrace::detach(thread, None)?;
    restored
}

fn restore(thread: Pid, registers: &Registers, mask: u64) -> Result<(), Fault> {
    set_registers(thread, registers)?;
    mishap::pass();
    set_mask(thread, mask)?;
    Ok(())
}

/// Lets a tracee run, and delivers a signal to it: also one that the types of nix do not know.
fn resume(request: c_uint, thread: Pid, signal: c_int) -> nix::Result<()> {
    let no_address = null_mut::<c_void>();
    // SAFETY: neither PTRACE_CONT nor PTRACE_SYSCALL takes a pointer; the last argument is the number of a signal.
    Errno::result(unsafe { libc::ptrace(request, thread.as_raw(), no_address, c_long::from(signal)) }).map(drop)
}

/// Waits for the next stop of a tracee. Any stop, of any thread: `__WALL`.
fn wait(thread: Pid) -> Result<Stop, Fault> {
    let mut status = 0;
    // SAFETY: waitpid writes one number to `status`.
    while let Err(errno) = Errno::result(unsafe { libc::waitpid(thread.as_raw(), &raw mut status, libc::__WALL) }) {
        match errno {
            Errno::EINTR => (),
            Errno::ECHILD => return Err(Fault::Gone),
            errno => return Err(errno.into()),
        }
    }
    if !libc::WIFSTOPPED(status) {
        return Err(Fault::Gone);
    }
    let signal = libc::WSTOPSIG(status);
    Ok(match status >> 16 {
        libc::PTRACE_EVENT_STOP => Stop::Interrupted,
        _ if signal == libc::SIGTRAP | 0x80 => Stop::SystemCall,
        _ => Stop::Signal(signal),
    })
}

/// PTRACE_GETREGSET
fn get_registers(thread: Pid) -> nix::Result<Registers> {
    let mut words = [0; WORDS];
    transfer_registers(libc::PTRACE_GETREGSET, thread, &mut words)?;
    Ok(Registers(words))
}

/// PTRACE_SETREGSET
fn set_registers(thread: Pid, registers: &Registers) -> nix::Result<()> {
    let mut words = registers.0;
    transfer_registers(libc::PTRACE_SETREGSET, thread, &mut words)
}

fn transfer_registers(request: c_uint, thread: Pid, words: &mut [u64; WORDS]) -> nix::Result<()> {
    let mut place = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: size_of_val(words) };
    // SAFETY: the kernel reads or writes at most `iov_len` bytes at `iov_base`, which are those of `words`.
    Errno::result(unsafe { libc::ptrace(request, thread.as_raw(), NT_PRSTATUS, &raw mut place) }).map(drop)
}

/// The mask of a thread; in a call that has changed it for a while (ppoll, sigsuspend), the one that comes after it.
fn get_mask(thread: Pid) -> nix::Result<u64> {
    let mut mask = 0_u64;
    // SAFETY: the kernel writes `SET_SIZE` bytes, which are those of `mask`.
    Errno::result(unsafe { libc::ptrace(PTRACE_GETSIGMASK, thread.as_raw(), SET_SIZE, &raw mut mask) }).map(|_| mask)
}

fn set_mask(thread: Pid, mask: u64) -> nix::Result<()> {
    // SAFETY: the kernel reads `SET_SIZE` bytes, which are those of `mask`.
    Errno::result(unsafe { libc::ptrace(PTRACE_SETSIGMASK, thread.as_raw(), SET_SIZE, &raw const mask) }).map(drop)
}

/// Whether the program handles its system calls itself, as Wine does: our calls would end in its handler. A kernel
/// older than Linux 6.4 does not say.
fn is_intercepted(thread: Pid) -> bool {
    // struct ptrace_sud_config: mode, selector, offset, length.
    let mut config = [0_u64; 4];
    let size = size_of_val(&config);
    let request = PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG;
    // SAFETY: the kernel writes `size` bytes, which are those of `config`.
    let result = unsafe { libc::ptrace(request, thread.as_raw(), size, &raw mut config) };
    result == 0 && config[0] != 0
}

/// The address of an instruction in the memory of a process that makes a system call: in the vDSO (vdso(7)), which
/// every program has, else in any code.
fn find_instruction(directory: &str, memory: &File) -> Result<u64, Fault> {
    let maps = fs::read_to_string(format!("{directory}/maps"))?;
    let is_code = |line: &&str| line.split(' ').nth(1).is_some_and(|access| access.starts_with("r-x"));
    let code = || maps.lines().filter(is_code);
    let in_order = code().filter(|line| line.ends_with("[vdso]")).chain(code().filter(|line| !line.ends_with(']')));
    for line in in_order {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let parse = |number| u64::from_str_radix(number, 16).ok();
        let Some((begin, end)) = range.and_then(|(begin, end)| Some((parse(begin)?, parse(end)?))) else { continue };
        if let Some(address) = search(memory, begin, end) {
            return Ok(address);
        }
    }
    Err(Fault::NoInstruction)
}

fn search(memory: &File, begin: u64, end: u64) -> Option<u64> {
    const PAGE: usize = 4096;
    let mut page = [0; PAGE];
    let mut address = begin;
    while address < end {
        memory.read_exact_at(&mut page, address).ok()?;
        let place = page.windows(INSTRUCTION.len()).position(|bytes| bytes == INSTRUCTION);
        if let Some(place) = place {
            return Some(address + place as u64);
        }
        address += PAGE as u64;
    }
    None
}
