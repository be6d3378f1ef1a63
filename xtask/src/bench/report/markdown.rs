//! The figures as sections of the document.

use std::fmt::Write as _;

use super::plot::{Bar, Group};
use super::terminal::{over_rig, sentence};
use crate::bench::packets::results::{CaseResult, Load, Results, Row};

const METHOD: &str = "\
Each program is in a network namespace of its own behind a veth pair, loaded and ready for the whole case. The sender is a
BPF program that runs over live frames (`BPF_PROG_TEST_RUN`) and sends each one out with the next source address:
60-byte frames, TCP. Programs take turns, round after round; a rate is the median of the rounds, and `gateway is`
the median of the rounds' ratios.

* **What is counted**: packets that the receiving device took off the wire in a second (`rx_packets`). Once all is quiet,
  these are compared with what the program under test says it dropped, by its own counters, and with what arrived in the
  stack behind it; a difference of more than 0.1 % makes the run fail.
* **One core does it all.** A veth pair's receiving end works on the core that sends: making a frame, carrying it over and
  dealing with it happen one after another, and the other core does none of it. (Handing the receiving end to a kernel
  thread on the other core was tried: rates of one program lay up to nine times apart from round to round.) So a rate
  includes what the rig costs, the same for all programs of a case. The empty program that drops everything shows that
  cost; `over the rig` is what is left without it. A ratio of two rates is therefore *smaller* than the ratio of the
  programs' own times.
* **Packets that pass** go on into the stack and end in TCP, since every packet has a TCP checksum that is wrong by one:
  after all hooks, counted (`InCsumErrors`), and before any socket's work. None of the programs looks at that checksum.
  Where packets pass, `over the rig` is over having no filter.
* **Rules** are the same for all, in each program's own words and with a counter on each drop. The gateway is the release
  binary with `gateway run`, its lists come by `gateway deny import`. xdp-filter runs the smallest of its programs that
  can do the case. nftables tests a single source by comparison, a list by one set, and limits SYNs as the example of a
  flood in its manual does.
";

const COOKIES: &str = "\
The sender floods the gateway's port with SYNs from 16 million sources, whose checksums are good, as fast as it can;
`syn_cookies: {above: 1000/s}`. Meanwhile curl connects 200 times, one after the other, from a host on a wire of its own.
";

/// The section of `bench packets`.
pub fn packets(results: &Results, plot: &str, machine: &str) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "## Packets\n\n{machine}- {} rounds of {} s\n\n![Packets a second]({plot})\n\n{}\n### Method\n\n{METHOD}\n",
        results.rounds,
        results.seconds,
        targets(results)
    );
    for case in &results.cases {
        text.push_str(&table(case));
    }
    text.push_str(
        "### Time of the program alone\n\nOne frame again and again (`BPF_PROG_TEST_RUN`): no network, warm caches. The empty \
         program shows what a run costs on this machine whatever the program does.\n\n\
         | | ns a packet | over the empty program |\n|---|---:|---:|\n",
    );
    for run in &results.runs {
        let _ = writeln!(text, "| {} | {:.0} | {:.0} |", run.name, run.ns, run.over_empty);
    }
    if let Some(cookies) = &results.cookies {
        let _ = write!(
            text,
            "\n### Connections under a flood of SYNs\n\n{COOKIES}\n* {}\n* median {:.1} ms to connect, {:.2} million SYNs a \
             second meanwhile\n* of {} SYNs {} were answered by the program; {} answers came out of the wire, {} were lost \
             by the device\n",
            cookies.sentence(),
            cookies.median_ms,
            cookies.flood_mpps,
            cookies.syns,
            cookies.answered,
            cookies.returned,
            cookies.lost
        );
    }
    text.push_str("\n### Loading a list\n\nFrom a file until the list is in force.\n\n| list | with | seconds |\n|---|---|---:|\n");
    for load in &results.loads {
        let _ = writeln!(text, "| {} | `{}` | {:.2} |", load.list, load.with, load.seconds);
    }
    text.push('\n');
    for (what, met) in results.loads.iter().flat_map(Load::aims) {
        let _ = writeln!(text, "* {}: {what}", if met { "ok" } else { "SHORT" });
    }
    text
}

fn targets(results: &Results) -> String {
    let mut text = String::from("| case | gateway is | aim | |\n|---|---:|---:|---|\n");
    for case in &results.cases {
        for target in &case.targets {
            let _ = writeln!(
                text,
                "| {} | {:.2}x {} | {:.1}x | {} |",
                case.title,
                target.ratio,
                target.than,
                target.at_least,
                if target.met { "ok" } else { "**short**" }
            );
        }
    }
    text
}

fn table(case: &CaseResult) -> String {
    let mut text = format!(
        "### {}\n\n{}\n\n| | Mpps | lowest to highest | ns a packet | over the rig | dropped | gateway is |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
        case.title, case.what
    );
    for row in &case.rows {
        let _ = writeln!(
            text,
            "| {} | {:.2} | {:.2} to {:.2} | {:.0} | {} | {:.1} % | {:.2}x |",
            row.tool,
            row.mpps,
            row.lowest(),
            row.highest(),
            row.ns(),
            over_rig(case, row),
            row.dropped * 100.0,
            case.ours(row).times(row)
        );
    }
    text.push('\n');
    for note in case
        .targets
        .iter()
        .map(sentence)
        .chain(case.notes.iter().cloned())
    {
        let _ = writeln!(text, "* {note}");
    }
    if !case.targets.is_empty() || !case.notes.is_empty() {
        text.push('\n');
    }
    text
}

/// Bars of all cases.
pub fn groups(results: &Results) -> Vec<Group> {
    let group = |case: &CaseResult| Group {
        title: format!("{}, Mpps", case.title),
        bars: case.rows.iter().enumerate().map(bar).collect(),
    };
    results.cases.iter().map(group).collect()
}

/// The gateway's is the first of each case.
fn bar((number, row): (usize, &Row)) -> Bar {
    Bar {
        name: row.tool.clone(),
        value: row.mpps,
        digits: 2,
        ours: number == 0,
    }
}
