//! How the program is linked: static, position-independent, with read-only relocations and no executable stack.
//!
//! The tests run the program that `cargo test` builds, with the flags of .cargo/config.toml, which are those of a
//! release as well. elf(5) has the layout that is read here.

use std::fs;
use std::path::Path;

use crate::support::DETACH;

/// `ET_DYN`: position-independent.
const DYN: u64 = 3;
/// `PT_INTERP`: the program that loads it.
const INTERP: u64 = 3;
/// `PT_GNU_STACK`: how the stack is mapped.
const GNU_STACK: u64 = 0x6474_e551;
/// `PT_GNU_RELRO`: what is read-only once the relocations are made.
const GNU_RELRO: u64 = 0x6474_e552;
/// `PF_X`: executable.
const EXECUTABLE: u64 = 1;

/// The type of a 64-bit ELF file, and the types and flags of its program headers.
fn read_headers(program: &Path) -> (u64, Vec<(u64, u64)>) {
    let bytes = fs::read(program).unwrap();
    assert_eq!(bytes[..5], *b"\x7fELF\x02", "{}", program.display());
    let number = |at: usize, size: usize| {
        let mut number = [0; 8];
        number[..size].copy_from_slice(&bytes[at..at + size]);
        if bytes[5] == 1 { u64::from_le_bytes(number) } else { u64::from_be_bytes(number) >> (64 - 8 * size) }
    };
    let at = |number: u64| usize::try_from(number).unwrap();
    let (table, size, count) = (at(number(32, 8)), at(number(54, 2)), at(number(56, 2)));
    let headers = (0..count).map(|place| table + place * size).map(|header| (number(header, 4), number(header + 4, 4)));
    (number(16, 2), headers.collect())
}

#[test]
fn program_is_static_and_hardened() {
    let (kind, headers) = read_headers(Path::new(DETACH));
    let flags = |wanted| headers.iter().find(|(kind, _)| *kind == wanted).map(|(_, flags)| *flags);
    assert_eq!(kind, DYN);
    assert_eq!(flags(INTERP), None);
    assert!(flags(GNU_RELRO).is_some());
    assert_eq!(flags(GNU_STACK).unwrap() & EXECUTABLE, 0);
    // The control: the test itself is linked dynamically or it is not, but a system's shell has an interpreter.
    let (_, of_shell) = read_headers(&fs::canonicalize("/bin/sh").unwrap());
    assert!(of_shell.iter().any(|(kind, _)| *kind == INTERP));
}
