//! Time per operation of every training workload.
//!
//!     cargo bench -p aigc-benches --bench profile \
//!         [-- workload … --seconds 5 --write docs/performance.md]

use aigc_benches::{Side, ours, serve, write_between};
use anyhow::{Context, Result};
use clap::Parser;

#[derive(Parser)]
struct Args {
    /// Workloads; the default is all training steps.
    workloads: Vec<String>,
    /// Seconds of measurement per workload.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// File to write the tables to, between its markers `<!-- profile -->`.
    #[arg(long)]
    write: Option<std::path::PathBuf>,
    /// Runs one workload, controlled by standard input.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// Added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(name) = args.serve {
        return serve(&name, true);
    }
    let names = match args.workloads.is_empty() {
        true => [
            "vae_mlp",
            "vae_conv",
            "vae_residual_vq",
            "vae_hierarchical",
            "dcgan",
            "gpt_char_train",
            "codec_train",
            "motion_unet_train",
        ]
        .map(String::from)
        .to_vec(),
        false => args.workloads,
    };
    let mut tables = Vec::new();
    for name in names {
        let table = profile(&name, args.seconds)?;
        println!("{table}\n");
        tables.push(table);
    }
    args.write.map_or(Ok(()), |path| {
        write_between(&path, "profile", &tables.join("\n\n"))
    })
}

/// The table of one workload: the times of its operations, longest first, and the rest of a step.
fn profile(name: &str, seconds: f64) -> Result<String> {
    let mut side = Side::start(ours(name)?)?;
    side.round(1.0)?;
    let answer = side.round(seconds)?;
    let runs = answer["runs"].as_f64().context("runs")?;
    let steps: f64 = answer["seconds"]
        .as_array()
        .context("seconds")?
        .iter()
        .filter_map(|time| time.as_f64())
        .sum();
    let step = steps / runs * 1e3;
    let operations = answer["operations"].as_object().context("operations")?;
    let per_step = |value: &serde_json::Value, factor: f64| {
        value.as_f64().map_or(0.0, |value| value * factor / runs)
    };
    let mut rows: Vec<(&str, f64, f64)> = operations
        .iter()
        .map(|(name, o)| (name.as_str(), per_step(&o[0], 1.0), per_step(&o[1], 1e3)))
        .collect();
    rows.sort_by(|a, b| b.2.total_cmp(&a.2));
    let rest = step - rows.iter().map(|row| row.2).sum::<f64>();
    let line = |(name, calls, time): &(&str, f64, f64)| {
        format!(
            "| {name} | {calls:.0} | {time:.3} | {:.1} % |",
            time / step * 100.0
        )
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    Ok(format!(
        "`{name}`, {step:.2} ms per step:\n\n| operation | calls | ms | share |\n|---|---|---|---|\n{}\n\
         | everything else | | {rest:.3} | {:.1} % |",
        lines.join("\n"),
        rest / step * 100.0
    ))
}
