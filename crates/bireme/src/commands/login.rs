//! `bireme login` and `bireme logout`.

use std::io::{BufRead, IsTerminal, Read, Write};

use anyhow::Context as _;
use bireme_api::answers::system::Authenticated;
use bireme_core::error::chain;
use serde_json::json;

use crate::cli::{LoginArgs, LogoutArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::registry;
use crate::terminal::HiddenInput;

/// Longest password that is read, in bytes: tokens are long, but not endless.
const MAX_PASSWORD: u64 = 64 * 1024;

pub(super) async fn login(context: &Context, args: &LoginArgs) -> Outcome {
    let server = registry::server_key(args.server.as_deref());
    // Who was logged in before, and names nobody, is not asked.
    if args.username.is_none()
        && args.password.is_none()
        && let Some(known) = registry::known(&server)
    {
        context.printer.note("Authenticating with existing credentials...")?;
        match context.client.post("/auth").json(&known).read::<Authenticated>().await {
            Ok(answer) => {
                context.printer.line(answer.status.as_deref().unwrap_or("Login Succeeded"))?;
                return Ok(0);
            }
            Err(error) => context.printer.note(format!("Login did not succeed, error: {}", chain(&error)))?,
        }
    }
    let (username, password) = ask(context, args)?;
    let wish = json!({"username": username, "password": password, "serveraddress": server});
    let answer: Authenticated = context.client.post("/auth").json(&wish).read().await?;
    let token = Some(answer.identity_token.as_str()).filter(|token| !token.is_empty());
    let login = registry::Login { username: &username, password: &password, token };
    if let Some(path) = registry::remember(&server, login)? {
        context.printer.note(format!(
            "WARNING! Your credentials are stored unencrypted in '{}'.\nName a credential helper there (credsStore) to remove this warning.",
            path.display()
        ))?;
    }
    context.printer.line(answer.status.as_deref().unwrap_or("Login Succeeded"))?;
    Ok(0)
}

/// Name and password, from the flags, standard input or whoever sits at the terminal.
fn ask(context: &Context, args: &LoginArgs) -> anyhow::Result<(String, String)> {
    let at_terminal = std::io::stdin().is_terminal();
    let no_terminal = || {
        Failure::new("cannot perform an interactive login from a non TTY device")
            .hint("pass --username, and the password with --password-stdin")
    };
    if args.password_stdin && args.username.is_none() {
        return Err(Failure::new("must provide --username with --password-stdin").into());
    }
    let line = |question: &str| -> anyhow::Result<String> {
        let mut err = std::io::stderr().lock();
        write!(err, "{question}")?;
        err.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().take(MAX_PASSWORD).read_line(&mut answer)?;
        Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
    };
    let username = match &args.username {
        Some(name) => name.clone(),
        None if at_terminal => line("Username: ")?.trim().to_owned(),
        None => return Err(no_terminal().into()),
    };
    if username.is_empty() {
        return Err(Failure::new("Error: Username required").into());
    }
    let password = match &args.password {
        _ if args.password_stdin => {
            let mut text = String::new();
            std::io::stdin().lock().take(MAX_PASSWORD).read_to_string(&mut text).context("cannot read the password")?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        Some(password) => {
            context.printer.note("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")?;
            password.clone()
        }
        None if at_terminal => {
            let hidden = HiddenInput::enter()?;
            let password = line("Password: ");
            drop(hidden);
            context.printer.note("")?;
            password?
        }
        None => return Err(no_terminal().into()),
    };
    if password.is_empty() {
        return Err(Failure::new("Error: Password Required").into());
    }
    Ok((username, password))
}

pub(super) fn logout(context: &Context, args: &LogoutArgs) -> Outcome {
    let server = registry::server_key(args.server.as_deref());
    if registry::forget(&server)? {
        context.printer.line(format!("Removing login credentials for {server}"))?;
    } else {
        context.printer.line(format!("Not logged in to {server}"))?;
    }
    Ok(0)
}
