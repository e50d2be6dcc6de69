//! `cargo xtask`: the repository's own chores, one subcommand per module.
//!
//! This file only reads the command line. What a chore does lives in the module of the same name.

mod codegen;
mod tidy;

use clap::{Parser, Subcommand};

/// Chores of the Kevel repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Generate `proto/src/gen` from `proto/proto`.
    Codegen(codegen::Arguments),
    /// Check the rules of ARCHITECTURE.md that a compiler can't.
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().chore {
        Chore::Codegen(arguments) => codegen::run(&arguments),
        Chore::Tidy => tidy::run(),
    }
}
