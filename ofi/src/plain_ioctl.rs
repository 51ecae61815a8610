//! ioctl(2) without an argument. It has nothing to do with fabrics; it is here because this crate is
//! where unsafe code is.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};

/// A request without an argument, and so without an answer but success.
struct Plain(Opcode);

// SAFETY: the kernel gets a null pointer as the argument, so that neither it nor this type touches any
// memory of this process, whatever the code means to the file: what it would copy from or to the null
// pointer ends with EFAULT. `output_from_ptr` does not look at its pointer either.
unsafe impl Ioctl for Plain {
    type Output = ();

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// Asks a file for what `code` means to it.
///
/// # Errors
/// What the file answers.
pub fn plain_ioctl(file: BorrowedFd<'_>, code: u32) -> io::Result<()> {
    // SAFETY: the one demand is that the request keeps to the contract of `Ioctl`; see above.
    let asked = unsafe { rustix::ioctl::ioctl(file, Plain(code)) };
    Ok(asked?)
}
