//! Rules that somebody removed are made again.

use bireme_sys::nft::Removal;

use super::State;
use super::bridge::set_route_localnet;
use crate::NetError;
use crate::forwarding;

impl State {
    /// Somebody removed tables, as `nft flush ruleset` does: makes again what is gone of ours, and has the kernel forget
    /// what began meanwhile. Nothing happens where `removed` are none of ours; where it tells of nothing, all are looked
    /// for.
    pub(crate) fn mend(&mut self, removed: &[Removal]) -> Result<(), NetError> {
        let number = self.rules.socket().number().map_err(NetError::io("asking for the number of a socket"))?;
        let by_others = |table: &str| removed.iter().any(|one| one.table == table && one.by != number);
        let taken = by_others(self.rules.table());
        if !(taken || removed.is_empty() || by_others(forwarding::TABLE)) {
            return Ok(());
        }
        let lost = self.rules.lost(taken).map_err(NetError::kernel("looking for the rules of nf_tables"))?;
        if !lost.is_empty() {
            let made = self.rebuild().map_err(NetError::kernel("making the rules of nf_tables again"));
            // Without rules a frame to 127.0.0.1 must not be routed (rules/mod.rs).
            self.route_localnet(made.is_ok());
            made?;
            tracing::warn!(
                table = self.rules.table(),
                "somebody removed the rules that keep workloads apart: they are made again"
            );
            for network in self.networks.values() {
                self.stale.unguarded(&network.spec);
            }
            for held in self.forwards.iter().filter(|held| held.ruled()) {
                self.stale.published(&held.forward);
            }
        }
        let routed = self.networks.values().filter(|network| !network.spec.internal);
        let gateways = routed.flat_map(|network| network.spec.subnets.iter().map(|subnet| subnet.gateway));
        self.forwarding.open(self.rules.socket(), gateways)
    }

    /// Whether packets to loopback addresses pass our bridges at all.
    fn route_localnet(&self, on: bool) {
        for network in self.networks.values() {
            if let Err(error) = set_route_localnet(&network.bridge, on) {
                tracing::warn!(bridge = network.bridge, on, %error, "route_localnet could not be set");
            }
        }
    }
}
