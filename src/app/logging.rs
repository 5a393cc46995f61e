//! Logs: to standard output, through a queue that never holds up a request.

use std::io::{self, IsTerminal, Write};

use tracing::level_filters::LevelFilter;

use crate::base::log_queue::{self, LogQueue, LogThread};
use crate::config::compiled::{LogFormat, LogLevel, LogSettings};
use crate::proxy::access_log::{AccessLog, Format, without_controls};

/// The running log. What is still queued is written when it is dropped.
pub struct Log {
    sink: LogQueue,
    format: Format,
    access: bool,
    _thread: LogThread,
}

/// Starts logging for the whole process. A second start keeps the first one's
/// format.
///
/// # Errors
///
/// Where the thread that writes cannot be started.
pub fn start(settings: &LogSettings) -> io::Result<Log> {
    let (sink, thread) = log_queue::start(io::stdout())?;
    let terminal = io::stdout().is_terminal();
    let format = match settings.format {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::Text,
        LogFormat::Auto if terminal => Format::Text,
        LogFormat::Auto => Format::Json,
    };
    let text = sink.clone();
    let text_sink = move || text.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level(settings.level))
        .with_writer(text_sink)
        .with_target(false)
        .with_ansi(terminal && format == Format::Text);
    // Only a second start in one process fails, and then the first one logs.
    let _ = match format {
        Format::Json => {
            let escaping = sink.clone();
            let subscriber = subscriber.with_writer(move || Escaping(escaping.clone()));
            tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish())
        }
        Format::Text => tracing::subscriber::set_global_default(subscriber.finish()),
    };
    Ok(Log {
        sink,
        format,
        access: settings.access,
        _thread: thread,
    })
}

/// Takes whole lines of JSON, and leaves no control character in them.
struct Escaping(LogQueue);

impl Write for Escaping {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(&without_controls(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Where access lines go.
    pub fn access(&self) -> AccessLog {
        if self.access {
            AccessLog::new(self.sink.clone(), self.format)
        } else {
            AccessLog::off()
        }
    }
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
