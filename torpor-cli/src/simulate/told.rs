//! What came of a simulation, as a table or JSON.

use crate::load_test::record::Record;
use crate::load_test::report::{HEADINGS, Summary, summarise};
use crate::simulate::System;
use crate::simulate::profile::Profile;
use crate::simulate::work::{Tally, Work};
use crate::table::{print_json, print_table};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// All functions together.
#[derive(Debug, Serialize)]
struct Totals {
    system: System,
    nodes: u32,
    functions: usize,
    /// Functions for which no node has room.
    unplaced: usize,
    /// Functions of whose requests as many were in time as should be.
    functions_in_objective: usize,
    /// GPUs that were at work, on average.
    busy_gpus: f64,
    gpus: usize,
    swaps: u64,
    swapped_bytes: u64,
    /// Of the swaps those that began at another GPU.
    swaps_from_peers: u64,
    evictions: u64,
    moves: u64,
    process_starts: u64,
    total: Option<Summary>,
}

/// What was simulated.
pub struct Told<'a> {
    /// What was to be done.
    pub work: &'a Work<'a>,
    /// One of the nodes.
    pub profile: &'a Profile,
    /// What served.
    pub system: System,
    /// How many nodes there were.
    pub nodes: u32,
    /// Functions without a node.
    pub unplaced: usize,
}

impl Told<'_> {
    /// Prints it.
    pub fn tell(&self, records: &[Record], tally: &Tally, json: bool) {
        let &Self { work, profile, system, nodes, unplaced } = self;
        let slos: BTreeMap<&str, Duration> =
            work.functions.iter().map(|function| (&*function.name, function.slo)).collect();
        let mut rows = summarise(records, |name| slos.get(name).copied());
        let total = if rows.len() > 1 { rows.pop() } else { rows.first().cloned() };
        let in_objective =
            |row: &&Summary| row.attainment.is_some_and(|attained| attained >= work.percentile);
        let totals = Totals {
            system,
            nodes,
            functions: rows.len(),
            unplaced,
            functions_in_objective: rows.iter().filter(in_objective).count(),
            busy_gpus: tally.busy_gpus(),
            gpus: profile.topology.gpus.len() * nodes as usize,
            swaps: tally.swaps,
            swapped_bytes: tally.swapped_bytes,
            swaps_from_peers: tally.swaps_from_peers,
            evictions: tally.evictions,
            moves: tally.moves,
            process_starts: tally.starts,
            total,
        };
        if json {
            #[derive(Serialize)]
            struct Whole<'a> {
                totals: &'a Totals,
                functions: &'a [Summary],
                sources: BTreeMap<&'a str, &'a str>,
            }
            let of_models = profile.models.iter().map(|(name, model)| (&**name, &*model.source));
            let sources = of_models.chain([("node", &*profile.source)]).collect();
            return print_json(&Whole { totals: &totals, functions: &rows, sources });
        }
        print_table(HEADINGS, &totals.total.iter().map(Summary::cells).collect::<Vec<_>>());
        let part = 100.0 * totals.functions_in_objective as f64 / totals.functions.max(1) as f64;
        if nodes > 1 {
            println!(
                "\n{} nodes of {} GPUs; {unplaced} functions have found no room",
                nodes,
                profile.topology.gpus.len()
            );
        }
        println!(
            "\nsimulated, not measured: {} of {} functions ({part:.1} %) had {} % of their requests in time; {:.2} of {} GPUs at \
             work; {} swaps, {} of them from another GPU, {} evictions, {} moves, {} processes started",
            totals.functions_in_objective,
            totals.functions,
            100.0 * work.percentile,
            totals.busy_gpus,
            totals.gpus,
            totals.swaps,
            totals.swaps_from_peers,
            totals.evictions,
            totals.moves,
            totals.process_starts,
        );
    }
}
