//! What happens when the system has no more memory to give: an error like any other, not an abort.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;

/// The system's allocator, which ends the program where it finds no memory.
#[derive(Debug)]
pub struct Allocator;

/// Says what is wrong and ends. Nothing here may ask for memory.
fn give_up(layout: Layout) -> ! {
    let mut line = [0; 160];
    let mut rest = &mut line[..];
    let _ = writeln!(rest, "error: out of memory: {} bytes could not be allocated", layout.size());
    let unused = rest.len();
    let written = line.len() - unused;
    let _ = std::io::stderr().write_all(&line[..written]);
    let hint = "hint: end other programs or raise the limit; `--dry-run` says what a run needs\n";
    let _ = std::io::stderr().write_all(hint.as_bytes());
    std::process::exit(1)
}

fn checked(pointer: *mut u8, layout: Layout) -> *mut u8 {
    if pointer.is_null() { give_up(layout) } else { pointer }
}

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of this call.
        checked(unsafe { System.alloc(layout) }, layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        checked(unsafe { System.alloc_zeroed(layout) }, layout)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        // SAFETY: the caller has made sure that size and alignment are a layout.
        checked(moved, unsafe { Layout::from_size_align_unchecked(size, layout.align()) })
    }
}
