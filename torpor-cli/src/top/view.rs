//! How a look is drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use torpor_gpuserver::server::size::ByteSize;
use torpor_router::overview::{FunctionView, GpuView, Overview};

/// Of the functions with memory on a GPU, the one with the most first.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
const COLOURS: [Color; 6] =
    [Color::Cyan, Color::Green, Color::Yellow, Color::Magenta, Color::Blue, Color::LightRed];
/// What has neither a letter nor is free.
const OTHER: char = '#';
const FREE: char = '·';

/// A GPU's head, bar, legend and the line below.
const GPU_LINES: u16 = 4;

/// Lines that an overview takes.
pub(super) fn height(overview: &Overview) -> u16 {
    let rows = overview.functions.len().max(1).try_into().unwrap_or(u16::MAX / 2);
    gpu_lines(overview) + rows + 1 + u16::from(!overview.trouble.is_empty())
}

fn gpu_lines(overview: &Overview) -> u16 {
    GPU_LINES.saturating_mul(overview.gpus.len().try_into().unwrap_or(16)).min(u16::MAX / 4)
}

/// Draws an overview on the whole of a terminal.
pub(super) fn draw(frame: &mut Frame<'_>, overview: &Overview) {
    let parts = [
        Constraint::Length(gpu_lines(overview)),
        Constraint::Min(2),
        Constraint::Length(u16::from(!overview.trouble.is_empty())),
    ];
    let [gpus, functions, trouble] = Layout::vertical(parts).areas(frame.area());
    let lines: Vec<_> = overview.gpus.iter().flat_map(|gpu| gpu_view(gpu, gpus.width)).collect();
    frame.render_widget(Paragraph::new(lines), gpus);
    draw_functions(frame, functions, &overview.functions);
    frame.render_widget(Line::from(overview.trouble.as_str()).yellow(), trouble);
}

fn gpu_view(gpu: &GpuView, width: u16) -> [Line<'static>; GPU_LINES as usize] {
    let simulated = if gpu.simulated { " (simulated)" } else { "" };
    let state = match () {
        () if !gpu.trouble.is_empty() => Span::from(gpu.trouble.clone()).red(),
        () if gpu.active.is_empty() => Span::from(gpu.state.clone()).dim(),
        () => Span::from(format!("serving {}", gpu.active.join(", "))).green(),
    };
    let head = vec![format!("GPU {}  {}{simulated}  ", gpu.gpu, gpu.name).bold(), state];
    let mut parts: Vec<(char, Color, String, u64)> = Vec::new();
    for (place, share) in gpu.shares.iter().enumerate() {
        let letter = LETTERS.chars().nth(place).unwrap_or(OTHER);
        parts.push((letter, COLOURS[place % COLOURS.len()], share.function.clone(), share.bytes));
    }
    parts.push((OTHER, Color::DarkGray, "other".to_owned(), gpu.other_bytes));
    parts.push((FREE, Color::DarkGray, "free".to_owned(), gpu.free_bytes));
    parts.retain(|part| part.3 > 0);
    let (mut bar, mut legend) = (Vec::new(), Vec::new());
    let (mut bytes, mut drawn) = (0_u64, 0);
    for (letter, colour, name, size) in parts {
        bytes = bytes.saturating_add(size);
        let end = (u128::from(bytes) * u128::from(width) / u128::from(gpu.total_bytes.max(1)))
            .min(width.into()) as usize;
        let style = Style::from(colour);
        bar.push(Span::styled(letter.to_string().repeat(end.saturating_sub(drawn)), style));
        legend.push(Span::styled(format!("{letter} "), style));
        legend.push(format!("{name} {}   ", ByteSize(size)).into());
        drawn = end.max(drawn);
    }
    [head.into(), bar.into(), legend.into(), Line::default()]
}

const HEADINGS: [(&str, u16); 13] = [
    ("NAME", 24),
    ("STATE", 8),
    ("GPU", 5),
    ("MEMORY", 10),
    ("RESIDENT", 10),
    ("QUEUE", 6),
    ("RUNNING", 7),
    ("RATE/S", 8),
    ("P50", 9),
    ("P99", 9),
    ("SLO", 9),
    ("ATTAINED", 8),
    ("SWAPS", 7),
];

fn draw_functions(frame: &mut Frame<'_>, area: Rect, functions: &[FunctionView]) {
    if functions.is_empty() {
        let hint = "no functions: start one with `torpor run --function NAME -- COMMAND`, or `torpor router`";
        return frame.render_widget(Line::from(hint).dim(), area);
    }
    let widths = HEADINGS.map(|(_, width)| Constraint::Length(width));
    let headings = HEADINGS.map(|(heading, _)| heading);
    let header = Row::new(headings).style(Style::new().add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(functions.iter().map(row), widths).header(header), area);
}

fn row(function: &FunctionView) -> Row<'static> {
    let node = function.node.as_ref();
    let served = function.served.as_ref();
    let fared = served.map(|served| served.fared);
    let nothing = || "-".to_owned();
    let of_node = |text: fn(&torpor_router::overview::NodeView) -> String| node.map_or_else(nothing, text);
    let ms = |ms: Option<f64>, none: &str| ms.map_or_else(|| none.to_owned(), |ms| format!("{ms:.1} ms"));
    let attainment = fared.and_then(|fared| fared.attainment);
    // Of those that were asked at all.
    let unanswered = if attainment.is_some() { "never" } else { "-" };
    let late = attainment.is_some_and(|part| part < 0.98);
    let cells = [
        function.name.clone(),
        of_node(|node| node.state.clone()),
        of_node(|node| node.gpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        of_node(|node| ByteSize(node.allocated_bytes).to_string()),
        of_node(|node| ByteSize(node.resident_bytes).to_string()),
        served.map_or_else(nothing, |served| served.waiting.to_string()),
        served.map_or_else(nothing, |served| served.running.to_string()),
        fared.map_or_else(nothing, |fared| format!("{:.1}", fared.rate)),
        ms(fared.and_then(|fared| fared.p50_ms), unanswered),
        ms(fared.and_then(|fared| fared.p99_ms), unanswered),
        served.and_then(|served| served.slo_ms).map_or_else(nothing, |ms| format!("{ms} ms")),
        attainment.map_or_else(nothing, |part| format!("{:.1} %", 100.0 * part)),
        of_node(|node| node.swaps.to_string()),
    ];
    let style = if late { Style::new().red() } else { Style::new() };
    Row::new(cells.map(Cell::from)).style(style)
}
