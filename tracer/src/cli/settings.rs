//! Merges the options of `serve` from the command line, environment variables and a file, in this order of precedence.
//!
//! Values of variables and the file are appended to the command line, which is then parsed again. So a value has the same
//! meaning in each place, and every option is supported.

use std::{ffi::OsString, fs, path::Path};

use clap::{Arg, ArgMatches, FromArgMatches as _, ValueEnum as _, parser::ValueSource};

use crate::{
    cli::{Cli, Command, applicability, command, conflict, tips::with_tip},
    report::ColorChoice,
};

/// Options that only the command line accepts.
const COMMAND_LINE_ONLY: &[&str] = &["config", "check", "help", "version"];

/// Options that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The command line is invalid.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file cannot be read.
    #[error(
        "the configuration {path} cannot be read: {error}; check its path and that this user may read it"
    )]
    Read {
        /// The file.
        path: String,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The file is not valid TOML.
    #[error(
        "the configuration {path} is not valid TOML at line {line}, column {column}: {error}; write options as in \
         `label-limit = 100` or `listen = [\"127.0.0.1:10793\"]`"
    )]
    Syntax {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The character in it, from 1.
        column: usize,
        /// The parser's reason.
        error: String,
    },
    /// An unknown key.
    #[error("the configuration {path} has the unknown key `{key}`; {remedy}")]
    Unknown {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// The suggested correction.
        remedy: String,
    },
    /// An invalid value of an option.
    #[error("{place}: {reason}")]
    Value {
        /// The file and key, or the variable.
        place: String,
        /// The mistake.
        reason: String,
    },
}

impl Cli {
    /// Parses the command line, and for `serve` also the variables and the file.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] names the mistake and its place.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, SettingsError> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let color = color_of(&arguments);
        let matches = command().color(color).try_get_matches_from(&arguments).map_err(with_tip)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.shared.is_silent_while_running = cli.is_silent_while_running();
        if let Some(refusal) = applicability::refusal(&cli, &matches) {
            return Err(conflict(color, refusal).into());
        }
        match (&cli.command, matches.subcommand()) {
            (Some(Command::Serve(_)), Some((_, given))) => merge(&arguments, given, &variable),
            _ => Ok(cli),
        }
    }
}

/// Returns when help and errors have colors, which the parser must know before it reads the option.
fn color_of(arguments: &[OsString]) -> clap::ColorChoice {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let value = words.iter().zip(1..).find_map(|(word, next)| match word.strip_prefix("--color")? {
        "" => words.get(next).map(|value| &**value),
        rest => rest.strip_prefix('='),
    });
    // A wrong value is an error of the parser.
    value.and_then(|value| ColorChoice::from_str(value, false).ok()).unwrap_or_default().into()
}

fn merge(
    arguments: &[OsString],
    given: &ArgMatches,
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Cli, SettingsError> {
    let is_given =
        |option: &Arg| given.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine);
    let options = options();
    let path = given.get_one::<std::path::PathBuf>("config").cloned();
    let path = path.or_else(|| variable(&variable_of("config")).filter(|it| !it.is_empty()).map(Into::into));
    let file = path.as_deref().map(read).transpose()?.unwrap_or_default();
    let shown = path.as_deref().unwrap_or(Path::new("")).display().to_string();

    let settable: Vec<&Arg> = options.iter().filter(|option| is_settable(option)).collect();
    if let Some(key) = file.keys().find(|key| settable.iter().all(|option| name(option) != key.as_str())) {
        return Err(unknown(shown, key, &settable));
    }
    let mut all = arguments.to_vec();
    for option in settable {
        if is_given(option) {
            continue;
        }
        let variable_name = variable_of(name(option));
        let (place, more) =
            match (variable(&variable_name).filter(|it| !it.is_empty()), file.get(name(option))) {
                (Some(value), _) => {
                    let more = of_text(option, &value);
                    (variable_name, more)
                }
                (None, Some(value)) => {
                    (format!("the configuration {shown}, key `{}`", name(option)), of_toml(option, value))
                }
                (None, None) => continue,
            };
        let more = more.map_err(|reason| SettingsError::Value { place: place.clone(), reason })?;
        // Parsed alone first, so that an error can name the place of the value.
        let alone = ["tcptrace-bpf".into(), "serve".into()].into_iter().chain(more.iter().cloned());
        command().try_get_matches_from(alone).map_err(|error| {
            let text = error.to_string();
            let reason = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            SettingsError::Value { place, reason }
        })?;
        all.extend(more);
    }
    let matches = command().try_get_matches_from(all)?;
    Ok(Cli::from_arg_matches(&matches)?)
}

/// Returns every option of `serve`, including the shared ones.
fn options() -> Vec<Arg> {
    let mut command = command();
    command.build();
    command.find_subcommand("serve").map(|serve| serve.get_arguments().cloned().collect()).unwrap_or_default()
}

fn name(option: &Arg) -> &str {
    option.get_long().unwrap_or_default()
}

fn is_settable(option: &Arg) -> bool {
    let is_own = command().get_arguments().all(|shared| shared.get_id() != option.get_id());
    (is_own || applicability::has_use("serve", name(option))) && !COMMAND_LINE_ONLY.contains(&name(option))
}

fn variable_of(name: &str) -> String {
    format!("TCPTRACE_{}", name.replace('-', "_").to_uppercase())
}

fn read(path: &Path) -> Result<toml::Table, SettingsError> {
    let shown = path.display().to_string();
    let text =
        fs::read_to_string(path).map_err(|error| SettingsError::Read { path: shown.clone(), error })?;
    text.parse().map_err(|error: toml::de::Error| {
        let before = text.get(..error.span().unwrap_or_default().start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        SettingsError::Syntax {
            path: shown,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            error: error.message().lines().collect::<Vec<_>>().join(", "),
        }
    })
}

fn unknown(path: String, key: &str, settable: &[&Arg]) -> SettingsError {
    // The likeliest mistake is an option name with underscores.
    let plain = key.replace('_', "-");
    let nearest = settable
        .iter()
        .map(|option| (strsim::jaro_winkler(&plain, name(option)), name(option)))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7);
    let remedy = if let Some((_, name)) = nearest {
        format!("did you mean `{name}`?")
    } else {
        let names: Vec<_> = settable.iter().map(|option| name(option)).collect();
        format!("known keys: {}", names.join(", "))
    };
    SettingsError::Unknown { path, key: key.to_owned(), remedy }
}

/// Converts a variable's value to arguments.
fn of_text(option: &Arg, value: &OsString) -> Result<Vec<OsString>, String> {
    if option.get_action().takes_values() {
        return Ok(vec![argument(option, value)]);
    }
    match value.to_string_lossy().as_ref() {
        "1" | "true" | "yes" | "on" => Ok(vec![format!("--{}", name(option)).into()]),
        "0" | "false" | "no" | "off" => Ok(Vec::new()),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

/// Converts a key's value to arguments.
fn of_toml(option: &Arg, value: &toml::Value) -> Result<Vec<OsString>, String> {
    if let toml::Value::Boolean(on) = value
        && !option.get_action().takes_values()
    {
        return Ok(if *on { vec![format!("--{}", name(option)).into()] } else { Vec::new() });
    }
    if !option.get_action().takes_values() {
        return Err("the value is neither true nor false".to_owned());
    }
    let values = match value {
        toml::Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    values
        .iter()
        .map(|value| match value {
            toml::Value::String(text) => Ok(argument(option, &text.into())),
            toml::Value::Integer(number) => Ok(argument(option, &number.to_string().into())),
            other => Err(format!("a {} is not an option value: write it in quotes", other.type_str())),
        })
        .collect()
}

fn argument(option: &Arg, value: &OsString) -> OsString {
    let mut argument = OsString::from(format!("--{}=", name(option)));
    argument.push(value);
    argument
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, io::Write as _};

    use super::*;
    use crate::{
        agent::logging::LogFormat,
        cli::{ServeArguments, shared::ModeArgument},
    };

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn read_with(
        arguments: &[&str],
        variables: &[(&str, &str)],
        toml: &str,
    ) -> Result<(Cli, ServeArguments), SettingsError> {
        let file = file(toml);
        let config = file.path().to_str().unwrap();
        let variables: HashMap<String, OsString> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        let fixed = ["tcptrace-bpf", "serve", "--config", config];
        let all = fixed.iter().chain(arguments).map(OsString::from);
        let cli = Cli::read(all, |name| variables.get(name).cloned())?;
        let Some(Command::Serve(serve)) = cli.command.clone() else { panic!("{cli:?}") };
        Ok((cli, serve))
    }

    #[test]
    fn options_override_variables_and_variables_override_the_file() {
        let toml = "label-limit = 7\nlog-format = \"json\"\nmode = \"btf\"\nno-snapshot = true\n\
                    listen = [\"127.0.0.1:1\", \"unix:/x\"]\n";
        let variables = [("TCPTRACE_LABEL_LIMIT", "8"), ("TCPTRACE_MODE", "tracepoint")];
        let (cli, serve) = read_with(&["--label-limit", "9"], &variables, toml).unwrap();
        assert_eq!((serve.label_limit, serve.log_format), (9, LogFormat::Json));
        assert_eq!((cli.shared.mode, cli.shared.no_snapshot), (ModeArgument::Tracepoint, true));
        assert_eq!(
            serve.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["127.0.0.1:1", "unix:/x"]
        );
        let (_, serve) = read_with(&[], &variables, toml).unwrap();
        assert_eq!(serve.label_limit, 8);
        let (cli, serve) = read_with(&[], &[("TCPTRACE_NO_SNAPSHOT", "0")], toml).unwrap();
        assert_eq!((cli.shared.no_snapshot, serve.label_limit), (false, 7));
        let (_, serve) = read_with(&[], &[], "").unwrap();
        assert_eq!(serve.listen[0].to_string(), "127.0.0.1:10793");
    }

    #[test]
    fn every_option_is_a_key() {
        for option in options() {
            let name = name(&option);
            if !is_settable(&option) {
                continue;
            }
            let value = match name {
                "listen" => "\"127.0.0.1:1\"",
                "web-config" => "\"/etc/web.yml\"",
                "page-host" => "[\"host.example\"]",
                "label" => "[\"process\", \"local_port\"]",
                "label-expiry" | "duration" | "latency" => "\"5m\"",
                "threshold" => "\"close_wait=5m\"",
                "log-format" => "\"json\"",
                "log-level" => "\"debug\"",
                "mode" => "\"btf\"",
                "color" => "\"never\"",
                "no-hook" => "[\"drop\", \"accept\"]",
                "buffer" => "\"8M\"",
                "netns" => "\"self\"",
                "label-limit" | "max-connections" | "freeze-files" => "5",
                "nice" => "-5",
                "ring" => "\"64M\"",
                "freeze-on" => "[\"handshake_p99>1s\", \"failures>10\"]",
                "freeze-to" => "\"/var/lib/tcptrace-bpf\"",
                "freeze-window" | "freeze-pause" => "\"10s\"",
                _ if !option.get_action().takes_values() => "true",
                "input" => "\"/a/recording\"",
                "host-root" => "\"/\"",
                other => panic!("give this test a value for the option --{other}"),
            };
            if let Err(error) = read_with(&[], &[], &format!("{name} = {value}\n")) {
                panic!("{name}: {error}");
            }
        }
        for name in COMMAND_LINE_ONLY {
            assert!(options().iter().any(|option| super::name(option) == *name), "{name} is not an option");
        }
    }

    #[test]
    fn errors_name_the_place_and_the_remedy() {
        for (toml, parts) in [
            ("lisen = \"127.0.0.1:1\"\n", &["unknown key `lisen`", "did you mean `listen`?"][..]),
            ("label_limit = 5\n", &["`label_limit`", "`label-limit`"]),
            ("xyzzy = 5\n", &["`xyzzy`", "known keys: listen"]),
            ("output = \"json\"\n", &["unknown key `output`"]),
            ("mode = \"kprobe\"\n", &["key `mode`", "invalid value 'kprobe'"]),
            ("label-limit = 0\n", &["key `label-limit`", "0"]),
            ("label-limit = 1.5\n", &["key `label-limit`", "float"]),
            ("no-snapshot = \"yes\"\n", &["key `no-snapshot`", "neither true nor false"]),
            ("label = [\"proces\"]\n", &["key `label`", "`proces`", "process"]),
            ("listen = \n", &["not valid TOML at line 1, column 1", "label-limit = 100"]),
            ("# é\nmode = \"btf\"\nlabel = [\"process\"\nlisten = 1\n", &["not valid TOML at line"]),
            ("mode = \"btf\"\nmode = \"btf\"\n", &["not valid TOML at line 2, column 1", "duplicate"]),
            ("listen = \"a\nb\"\n", &["not valid TOML at line 2, column 3"]),
        ] {
            let error = read_with(&[], &[], toml).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{part} not in: {error}");
            }
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = read_with(&[], &[("TCPTRACE_BUFFER", "1")], "").unwrap_err().to_string();
        assert!(error.contains("TCPTRACE_BUFFER") && error.contains("4K"), "{error}");
        let error = read_with(&["--failed"], &[], "").unwrap_err().to_string();
        assert!(error.contains("`serve` has no use for --failed"), "{error}");
        let all = ["tcptrace-bpf", "serve", "--config", "/no/such/file"].map(OsString::from);
        let error = Cli::read(all, |_| None).unwrap_err().to_string();
        assert!(error.contains("/no/such/file") && error.contains("check its path"), "{error}");
    }

    #[test]
    fn the_color_of_help_is_known_before_the_options_are_parsed() {
        use clap::ColorChoice::{Always, Auto, Never};
        for (words, color) in [
            (&["--help"][..], Auto),
            (&["--color", "never", "--help"], Never),
            (&["stuck", "--color=always", "-h"], Always),
            (&["--color=blue"], Auto),
            (&["--color"], Auto),
        ] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            assert_eq!(color_of(&words), color, "{words:?}");
        }
    }

    #[test]
    fn other_commands_read_no_variables() {
        let all = ["tcptrace-bpf", "transitions"].map(OsString::from);
        let cli = Cli::read(all, |name| panic!("{name}")).unwrap();
        assert_eq!(cli.command, Some(Command::Transitions));
    }
}
