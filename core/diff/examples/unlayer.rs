//! Applies a layer from standard input to a directory and prints what was done, to measure it beside other programs.
//!
//! `unlayer DIRECTORY [overlay] < layer.tar.gz`

use std::{error::Error, fs::File, io, time::Instant};

use kevel_diff::{Form, Options, apply_layer};

#[expect(clippy::print_stdout, reason = "a program for the terminal")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = File::open(arguments.next().ok_or("no directory is named")?)?;
    let form = if arguments.next().as_deref() == Some("overlay") { Form::Overlay } else { Form::Plain };
    let started = Instant::now();
    // Not `Stdin`, whose lock stays on its thread.
    let input = File::open("/dev/stdin").map_err(|error| io::Error::other(format!("standard input: {error}")))?;
    let layer = apply_layer(input, "", &root, &Options { form, ..Options::default() })?;
    println!("{:?} {layer:?}", started.elapsed());
    Ok(())
}
