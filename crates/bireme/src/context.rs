//! What a command is handed besides its arguments.

use bireme_api::Client;

use crate::cli::AppArgs;
use crate::printer::Printer;
use crate::settings::{Origin, Settings};

/// The engine's client, the printer and the settings they came from.
#[derive(Clone, Debug)]
pub struct Context {
    /// Speaks to the engine that the settings name.
    pub client: Client,
    /// Where everything is printed.
    pub printer: Printer,
    /// Flags, environment and defaults.
    pub settings: Settings,
    /// The app that the flags before the command name.
    pub app: AppArgs,
}

impl Context {
    /// Sends nothing yet.
    pub fn new(settings: Settings, app: AppArgs) -> Self {
        Self { client: Client::new(settings.host.clone()), printer: Printer::new(settings.color), settings, app }
    }

    /// Starts the engine when nobody named one and none answers.
    pub async fn ensure_engine(&self) -> anyhow::Result<()> {
        if self.settings.host_origin == Origin::Default {
            crate::daemon::ensure(&self.client, &self.printer).await
        } else {
            Ok(())
        }
    }
}
