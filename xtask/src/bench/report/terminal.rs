//! The figures as tables on a terminal.

use crate::bench::packets::results::{CaseResult, Results, Row, TargetResult};

/// Prints all that was measured.
pub fn print(results: &Results) {
    for case in &results.cases {
        print_case(case);
    }
    if !results.runs.is_empty() {
        println!(
            "\nOne frame again and again{:>22} {:>12}",
            "ns a packet", "over empty"
        );
        for run in &results.runs {
            println!("  {:<44} {:>6.0} {:>10.0}", run.name, run.ns, run.over_empty);
        }
    }
    if let Some(cookies) = &results.cookies {
        println!("\nCookies\n  {}", cookies.sentence());
        println!(
            "  median {:.1} ms; {:.2} Mpps of SYNs meanwhile; of {} SYNs {} answered, {} answers arrived, {} lost",
            cookies.median_ms,
            cookies.flood_mpps,
            cookies.syns,
            cookies.answered,
            cookies.returned,
            cookies.lost
        );
    }
    if !results.loads.is_empty() {
        println!("\nLoading");
        for load in &results.loads {
            println!("  {}, {:<24} {:>6.2} s", load.list, load.with, load.seconds);
            for (what, met) in load.aims() {
                println!("    {}: {what}", if met { "ok" } else { "SHORT" });
            }
        }
    }
    let targets = || results.cases.iter().flat_map(|case| &case.targets);
    let short = targets().filter(|target| !target.met).count();
    println!("\n{} of {} targets short", short, targets().count());
}

fn print_case(case: &CaseResult) {
    println!("\n{}", case.title);
    println!(
        "  {:<26} {:>8} {:>15} {:>11} {:>9} {:>9} {:>11}",
        "", "Mpps", "lowest-highest", "ns a packet", "over rig", "dropped", "gateway is"
    );
    for row in &case.rows {
        println!(
            "  {:<26} {:>8.2} {:>15} {:>11.0} {:>9} {:>8.1}% {:>10.2}x",
            row.tool,
            row.mpps,
            format!("{:.2}-{:.2}", row.lowest(), row.highest()),
            row.ns(),
            over_rig(case, row),
            row.dropped * 100.0,
            case.ours(row).times(row)
        );
    }
    for target in &case.targets {
        println!("  {}", sentence(target));
    }
    for note in &case.notes {
        println!("  {note}");
    }
}

/// Nanoseconds of a packet beyond what the rig costs it, which is not known in every case.
pub fn over_rig(case: &CaseResult, row: &Row) -> String {
    let over = case.floor().map(|floor| row.ns() - floor);
    // Less than the floor: it drops what that passes.
    over.filter(|over| *over >= 0.0)
        .map_or_else(|| "-".to_owned(), |over| format!("{over:.0}"))
}

/// `ok: 2.10x the better nftables hook, aim 1.8x`.
pub fn sentence(target: &TargetResult) -> String {
    format!(
        "{}: {:.2}x {}, aim {:.1}x",
        if target.met { "ok" } else { "SHORT" },
        target.ratio,
        target.than,
        target.at_least
    )
}
