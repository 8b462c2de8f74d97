//! `torpor top`: the node at one look, again and again.

mod source;
mod view;

use crate::error::CliError;
use crate::router::RouterFlag;
use crate::table::{print, print_json};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal;
use source::Source;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Instant;
use torpor_gpuserver::server::time::Time;
use torpor_router::overview::Overview;
use view::{draw, height};

const EXAMPLES: &str = "\
Above, the GPUs: whose memory is there (a letter for each function, the most first), and who uses it now. Below, the functions:
MEMORY is what each has, RESIDENT what of it is on a GPU; QUEUE and RUNNING are requests that wait and that a process is
answering; RATE, P50, P99 and ATTAINED (the part that was answered well within the SLO) are those of the last minute. What only
a router knows is missing without one. q ends it.

Examples:
  torpor top
  torpor top --once          # one look, as text
  torpor top --json | jq '.functions[] | {name, p99: .served.fared.p99_ms}'";

/// Watch the GPUs and the functions: memory, queues, rates, latencies
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Top {
    #[command(flatten)]
    router: RouterFlag,

    /// From one look to the next
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Time,

    /// Look once, and print it as text
    #[arg(long)]
    once: bool,

    /// Look once, and print JSON
    #[arg(long, conflicts_with = "once")]
    json: bool,
}

/// Columns of what is printed where there is no terminal.
const COLUMNS: u16 = 140;

impl Top {
    /// Looks, until told to end.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let mut source = Source::open(&self.router)?;
        if self.json {
            print_json(&source.look()?);
        } else if self.once || !io::stdout().is_terminal() {
            print(&text(&source.look()?));
        } else {
            let first = source.look()?;
            let mut terminal = ratatui::try_init()?;
            let watched = self.watch(&mut terminal, &mut source, first);
            ratatui::restore();
            watched?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn watch(
        &self,
        terminal: &mut ratatui::DefaultTerminal,
        source: &mut Source,
        mut shown: Overview,
    ) -> Result<(), CliError> {
        loop {
            terminal.draw(|frame| draw(frame, &shown))?;
            let next = Instant::now() + self.interval.0;
            while let Some(rest) = next.checked_duration_since(Instant::now()) {
                if !event::poll(rest)? {
                    break;
                }
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press => {
                        let interrupted =
                            key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
                        if interrupted || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                            return Ok(());
                        }
                    }
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
            shown = source.look()?;
        }
    }
}

/// What a terminal of the needed height would show.
fn text(overview: &Overview) -> String {
    let of_terminal = terminal::size().ok().filter(|_| io::stdout().is_terminal());
    let columns = of_terminal.map_or(COLUMNS, |(columns, _)| columns.max(1));
    // A terminal in memory does not fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, height(overview)));
    let Ok(_) = terminal.draw(|frame| draw(frame, overview));
    let rows = terminal.backend().buffer().content().chunks(columns.into());
    let line = |row: &[Cell]| row.iter().map(Cell::symbol).collect::<String>();
    rows.map(|row| line(row).trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_router::overview::{FunctionView, GpuView, NodeView, ServedView, Share};
    use torpor_router::recent::Fared;

    #[test]
    fn a_look_has_the_gpus_memory_by_function_and_how_functions_fare() {
        let share = |name: &str, mib: u64| Share { function: name.to_owned(), bytes: mib << 20 };
        let gpu = GpuView {
            gpu: 0,
            name: "NVIDIA H200".to_owned(),
            state: "ready".to_owned(),
            simulated: true,
            total_bytes: 100 << 20,
            shares: vec![share("detect", 50), share("classify", 25)],
            other_bytes: 5 << 20,
            free_bytes: 20 << 20,
            active: vec!["detect".to_owned()],
            ..GpuView::default()
        };
        let fared = Fared { rate: 12.5, p50_ms: Some(3.25), p99_ms: None, attainment: Some(0.875) };
        let served = ServedView { waiting: 4, running: 1, slo_ms: Some(200), fared, instances: 1 };
        let node = NodeView { state: "idle".to_owned(), gpus: vec![0], swaps: 17, ..NodeView::default() };
        let name = "classify".to_owned();
        let functions = vec![
            FunctionView { name, node: Some(node), served: Some(served) },
            FunctionView { name: "other-one".to_owned(), ..FunctionView::default() },
        ];
        let overview = Overview { gpus: vec![gpu], functions, trouble: "what is wrong".to_owned() };
        let shown = text(&overview);
        let lines: Vec<_> = shown.lines().collect();
        let has = |words: &[&str]| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(has(&["GPU 0", "NVIDIA H200 (simulated)", "serving detect"]), "{shown}");
        assert!(has(&["a detect 50 MiB", "b classify 25 MiB", "other 5 MiB", "free 20 MiB"]), "{shown}");
        let bar = lines.iter().find(|line| line.contains("aaaa")).unwrap();
        let count = |letter| bar.matches(letter).count();
        assert!(count('a').abs_diff(2 * count('b')) <= 2 && count('·') > 0, "{bar}");
        assert!(
            has(&["classify", "idle", "4", "12.5", "3.2 ms", "never", "200 ms", "87.5 %", "17"]),
            "{shown}"
        );
        assert!(has(&["other-one", "-"]) && has(&["what is wrong"]), "{shown}");
    }

    #[test]
    fn an_empty_node_can_be_looked_at() {
        assert!(text(&Overview::default()).contains("no functions"));
    }
}
