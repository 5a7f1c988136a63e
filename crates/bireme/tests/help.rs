//! The help of every command, as people see it.

/// Collects the command and all below it.
fn helps(command: &mut clap::Command, path: &str, out: &mut Vec<(String, String)>) {
    let help = command.clone().render_long_help().to_string();
    // Trailing blanks are how clap fills columns; no editor keeps them.
    let help = help.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    out.push((path.to_owned(), help));
    for below in command.get_subcommands_mut() {
        let name = format!("{path} {}", below.get_name());
        helps(below, &name, out);
    }
}

#[test]
fn help_of_every_command() {
    let mut command = bireme::cli::command().term_width(100);
    command.build();
    let mut all = Vec::new();
    helps(&mut command, "bireme", &mut all);
    assert!(all.len() > 60, "{}", all.len());
    for (path, help) in all {
        insta::assert_snapshot!(path.replace(' ', "_"), help);
    }
}

#[test]
fn every_completion_script_is_written() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut bireme::cli::command(), "bireme", &mut script);
        assert!(String::from_utf8(script).unwrap().contains("bireme"));
    }
}
