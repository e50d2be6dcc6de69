//! `loop`: a file as a block device. The activation's entry is a link to the device.
#![expect(unsafe_code, reason = "the ioctls of loop(4) are in no safe wrapper")]

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsRawFd as _, RawFd},
    path::Path,
};

use kevel_model::Mount;
use rustix::io::Errno;

use crate::{Error, Result};

/// Each try is another device that somebody else took first.
const TRIES: usize = 64;

const SET_STATUS: libc::Ioctl = 0x4C04;
const GET_STATUS: libc::Ioctl = 0x4C05;
const CONFIGURE: libc::Ioctl = 0x4C0A;
const GET_FREE: libc::Ioctl = 0x4C82;
/// The device lets go of the file when nobody has the device open.
const AUTOCLEAR: u32 = 4;
const READ_ONLY: u32 = 1;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// Calls an ioctl with a pointer to what it reads or fills.
fn call<T>(device: &File, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: each request here reads or writes one `T`, laid out as the kernel's, for as long as the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn empty() -> Info {
    Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    }
}

/// Makes a device of the source and a link to it at `point`.
pub(super) fn attach(mount: &Mount, point: &Path) -> Result<()> {
    let doing = |error: io::Error| Error::io(format!("making a loop device of {:?}", mount.source), error);
    let read_only = match mount.options.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["rw"] => false,
        ["ro"] => true,
        _ => return Err(Error::refused("options", format!("{:?} of a loop device are not ro or rw", mount.options))),
    };
    let file = OpenOptions::new().read(true).write(!read_only).open(&mount.source).map_err(doing)?;
    if !file.metadata().map_err(doing)?.is_file() {
        return Err(Error::refused("source", format!("{:?} is no file", mount.source)));
    }
    let (device, path) = configure(file.as_raw_fd(), read_only, &mount.source).map_err(doing)?;
    std::os::unix::fs::symlink(path, point).map_err(doing)?;
    // From here the link keeps the device; until here the open descriptor did.
    keep(&device, true).map_err(doing)
}

fn configure(file: RawFd, read_only: bool, name: &str) -> io::Result<(File, String)> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    let mut info = empty();
    info.flags = AUTOCLEAR | if read_only { READ_ONLY } else { 0 };
    let length = name.len().min(info.file_name.len() - 1);
    info.file_name[..length].copy_from_slice(&name.as_bytes()[..length]);
    let fd = u32::try_from(file).map_err(io::Error::other)?;
    for _ in 0..TRIES {
        // SAFETY: this request takes no argument and answers a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = format!("/dev/loop{number}");
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut config = Config { fd, block_size: 0, info, reserved: [0; 8] };
        match call(&device, CONFIGURE, &mut config) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => {}
            configured => return configured.map(|()| (device, path)),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("{TRIES} loop devices were taken by others")))
}

/// Says whether the device stays when nobody has it open.
fn keep(device: &File, keep: bool) -> io::Result<()> {
    let mut info = empty();
    call(device, GET_STATUS, &mut info)?;
    info.flags = if keep { info.flags & !AUTOCLEAR } else { info.flags | AUTOCLEAR };
    call(device, SET_STATUS, &mut info)
}

/// Lets go of the device of a link, when its last user does, and removes the link.
pub(super) fn detach(point: &Path) -> Result<()> {
    let doing = |error: io::Error| Error::io(format!("letting go of the loop device at {point:?}"), error);
    let path = fs::read_link(point).map_err(doing)?;
    match File::open(&path) {
        Ok(device) => match keep(&device, false) {
            // It has no file.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => {}
            told => told.map_err(doing)?,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(doing(error)),
    }
    fs::remove_file(point).map_err(doing)
}
