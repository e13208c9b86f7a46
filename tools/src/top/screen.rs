//! A page on a terminal, by ratatui. Whatever ends it, the terminal is as it was: at an orderly end and
//! at SIGTERM we restore it, at a panic ratatui's hook does.

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tailbeam_probes::clock;

use super::{Grid, Page, Source};
use crate::Failure;

/// Between two looks at the keyboard.
const KEYS: Duration = Duration::from_millis(50);
/// The first column to sort by: cpu of threads, busy of cores.
const SORT: usize = 2;

/// What the user chose.
struct View {
    paused: bool,
    sort: usize,
}

/// What a key means.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Quit,
    Pause,
    Next,
    Back,
    Nothing,
}

fn action(event: &Event) -> Action {
    let Event::Key(key) = event else { return Action::Nothing };
    if key.kind == KeyEventKind::Release {
        return Action::Nothing;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Action::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Action::Quit,
        KeyCode::Char('p' | ' ') => Action::Pause,
        KeyCode::Char('s' | '>') | KeyCode::Right => Action::Next,
        KeyCode::Char('<') | KeyCode::Left => Action::Back,
        _ => Action::Nothing,
    }
}

/// Shows pages until the user or a signal ends it; the signal's number, or 0.
///
/// # Errors
/// The source, or the terminal.
pub(crate) fn run(
    source: &mut dyn Source,
    interval_ns: u64,
    panic_at: Option<u64>,
) -> Result<usize, Failure> {
    let signal = Arc::new(AtomicUsize::new(0));
    for (number, value) in [(SIGTERM, 15), (SIGINT, 2), (SIGHUP, 1)] {
        flag::register_usize(number, Arc::clone(&signal), value).map_err(no_terminal)?;
    }
    let mut terminal = ratatui::try_init().map_err(no_terminal)?;
    let shown = show(&mut terminal, source, (interval_ns, panic_at), &signal);
    let restored = ratatui::try_restore();
    shown?;
    restored.map_err(no_terminal)?;
    Ok(signal.load(Ordering::Relaxed))
}

fn no_terminal(error: io::Error) -> Failure {
    Failure::new(
        1,
        format!(
            "no live view on this terminal\n  cause: {error}\n  remedy: `tailbeam top --once`, or --count N"
        ),
    )
}

fn show(
    terminal: &mut DefaultTerminal,
    source: &mut dyn Source,
    (interval_ns, panic_at): (u64, Option<u64>),
    signal: &AtomicUsize,
) -> Result<(), Failure> {
    let mut view = View { paused: false, sort: SORT };
    let mut page = source.page(clock::monotonic_ns())?;
    let (mut next_ns, mut dirty, mut frames) = (clock::monotonic_ns() + interval_ns, true, 0u64);
    while signal.load(Ordering::Relaxed) == 0 {
        let now_ns = clock::monotonic_ns();
        if now_ns >= next_ns && !view.paused {
            page = source.page(now_ns)?;
            (next_ns, dirty) = (now_ns + interval_ns, true);
        }
        source.between(now_ns);
        if dirty {
            page.main.sort(view.sort);
            terminal.draw(|frame| draw(frame, &page, &view)).map_err(no_terminal)?;
            frames += 1;
            dirty = false;
        }
        assert!(panic_at.is_none_or(|at| frames < at), "asked to panic at frame {frames}");
        if !event::poll(KEYS).map_err(no_terminal)? {
            continue;
        }
        let columns = page.main.header.len().max(1);
        match action(&event::read().map_err(no_terminal)?) {
            Action::Quit => return Ok(()),
            Action::Pause => view.paused = !view.paused,
            Action::Next => view.sort = (view.sort + 1) % columns,
            Action::Back => view.sort = (view.sort + columns - 1) % columns,
            // Also a new size of the terminal.
            Action::Nothing => {}
        }
        dirty = true;
    }
    Ok(())
}

fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn draw(frame: &mut Frame<'_>, page: &Page, view: &View) {
    let area = frame.area();
    let second = page.second.as_ref().map_or(0, |grid| grid.rows.len() + 2);
    // The second table gets at most two fifths, the notes two lines.
    let second = second.min(usize::from(area.height) * 2 / 5);
    let heights = [
        Constraint::Length(rows(1 + page.lines.len())),
        Constraint::Min(3),
        Constraint::Length(rows(second)),
        Constraint::Length(rows(page.notes.len().min(2))),
        Constraint::Length(1),
    ];
    let [head, main, below, notes, keys] = Layout::vertical(heights).areas(area);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines = vec![Line::styled(page.title.clone(), bold)];
    lines.extend(page.lines.iter().cloned().map(Line::raw));
    frame.render_widget(Paragraph::new(lines), head);
    grid(frame, &page.main, main, Some(view.sort));
    if let Some(second) = &page.second {
        grid(frame, second, below, None);
    }
    let said: Vec<Line<'_>> =
        page.notes.iter().map(|note| Line::raw(format!("! {note}"))).collect();
    frame.render_widget(Paragraph::new(said), notes);
    let paused = if view.paused { "PAUSED  " } else { "" };
    let sorted = page.main.header.get(view.sort).unwrap_or(&"-");
    let help = format!("{paused}q quit  p pause  s < > sort: {sorted}");
    frame.render_widget(
        Paragraph::new(help).style(Style::new().add_modifier(Modifier::REVERSED)),
        keys,
    );
}

fn grid(frame: &mut Frame<'_>, grid: &Grid, area: Rect, sort: Option<usize>) {
    let [title, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(grid.title.clone()), title);
    let width = |column: usize| {
        let cells = grid.rows.iter().map(|row| row[column].text.chars().count());
        cells.chain([grid.header[column].chars().count()]).max().unwrap_or(1)
    };
    let last = grid.header.len().saturating_sub(1);
    let widths = (0..grid.header.len()).map(|column| match column {
        // Names of functions take what is left.
        _ if column == last && grid.left == 0 && grid.header[column] == "function" => {
            Constraint::Min(8)
        }
        _ => Constraint::Max(u16::try_from(width(column).min(40)).unwrap_or(40)),
    });
    let align = |column: usize, text: String| {
        let name = column < grid.left || grid.header[column] == "function";
        let side = if name { Alignment::Left } else { Alignment::Right };
        Line::raw(text).alignment(side)
    };
    let header = grid.header.iter().enumerate().map(|(column, name)| {
        let line = align(column, (*name).to_owned());
        match sort == Some(column) {
            true => line.style(Style::new().add_modifier(Modifier::REVERSED)),
            false => line,
        }
    });
    let rows = grid.rows.iter().map(|row| {
        Row::new(row.iter().enumerate().map(|(column, cell)| align(column, cell.text.clone())))
    });
    let table = Table::new(rows, widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .column_spacing(1);
    frame.render_widget(table, body);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyEvent;

    use super::super::Cell;
    use super::*;

    fn page() -> Page {
        let row = |name: &str, cpu: f64| {
            vec![
                Cell::name(name),
                Cell::figure(Some(7.0), |v| format!("{v:.0}")),
                Cell::figure(Some(cpu), |v| format!("{v:.1} %")),
            ]
        };
        let header = vec!["thread", "id", "cpu"];
        let rows = vec![row("calm", 1.0), row("busy", 99.0)];
        let functions = vec![vec![Cell::figure(Some(1.0), |v| v.to_string()), Cell::name("work")]];
        Page {
            title: "tailbeam top  process 1".to_owned(),
            lines: vec!["two threads".to_owned()],
            main: Grid { title: "Threads".to_owned(), header, left: 1, rows },
            second: Some(Grid {
                title: "Functions".to_owned(),
                header: vec!["self", "function"],
                left: 0,
                rows: functions,
            }),
            notes: vec!["unknown: cycles".to_owned()],
        }
    }

    fn drawn(width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut page = page();
        page.main.sort(SORT);
        let view = View { paused: true, sort: SORT };
        terminal.draw(|frame| draw(frame, &page, &view)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_page_fits_80_by_24_and_nothing_breaks_on_less() {
        let text = drawn(80, 24);
        for part in
            ["process 1", "two threads", "Threads", "work", "! unknown", "PAUSED", "sort: cpu"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.find("busy") < text.find("calm"), "sorted by cpu\n{text}");
        for (width, height) in [(1, 1), (10, 3), (40, 8), (200, 60)] {
            drawn(width, height);
        }
    }

    #[test]
    fn keys() {
        let key = |code| Event::Key(KeyEvent::from(code));
        assert_eq!(action(&key(KeyCode::Char('q'))), Action::Quit);
        assert_eq!(action(&key(KeyCode::Char('p'))), Action::Pause);
        assert_eq!(action(&key(KeyCode::Char('s'))), Action::Next);
        assert_eq!(action(&key(KeyCode::Char('<'))), Action::Back);
        assert_eq!(action(&Event::Resize(80, 24)), Action::Nothing);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(&Event::Key(interrupt)), Action::Quit);
    }
}
