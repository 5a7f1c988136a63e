//! `wasi:config/store`: the environment of the workload, and the variables of an app of Spin.

use super::bindings::draft::wasi::config0_2_0_rc_1::store as rc;
use super::bindings::sync::wasi::config0_2_0_draft_2024_09_27::store as draft;
use crate::guest::Guest;

impl Guest {
    fn environment(&self, name: &str) -> Option<String> {
        let found = self.component.env.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        found.or_else(|| self.component.variables.get(name)).cloned()
    }

    fn whole_environment(&self) -> Vec<(String, String)> {
        let variables = self.component.variables.iter().map(|(name, value)| (name.clone(), value.clone()));
        self.component.env.iter().cloned().chain(variables).collect()
    }
}

impl draft::Host for Guest {
    async fn get(&mut self, key: String) -> Result<Option<String>, draft::Error> {
        Ok(self.environment(&key))
    }

    async fn get_all(&mut self) -> Result<Vec<(String, String)>, draft::Error> {
        Ok(self.whole_environment())
    }
}

impl rc::Host for Guest {
    async fn get(&mut self, key: String) -> Result<Option<String>, rc::Error> {
        Ok(self.environment(&key))
    }

    async fn get_all(&mut self) -> Result<Vec<(String, String)>, rc::Error> {
        Ok(self.whole_environment())
    }
}
