//! Addresses for interfaces that are static in a network with a range: out of the same book as those
//! that are asked for, so that nobody gets one twice.

use super::{DhcpServer, Shared, now_s, read_interface};
use crate::dhcp::answer::{Mode, is_used};
use crate::dhcp::lease::Exhausted;
use crate::model::network::{Lan, Mac};
use crate::port::netboot::Lessor;
use async_trait::async_trait;
use std::net::Ipv4Addr;
use std::sync::Arc;

impl DhcpServer {
    /// Gives addresses, where it is the network's server: beside another one it has none to give.
    pub fn lessor(&self) -> Option<Arc<dyn Lessor>> {
        (self.0.settings.mode == Mode::Reservation).then(|| self.0.clone() as Arc<dyn Lessor>)
    }
}

#[async_trait]
impl Lessor for Shared {
    fn lease_of(&self, network: &str, mac: Mac) -> Option<Ipv4Addr> {
        self.memory().leases.kept_of(network, mac)
    }

    async fn lease(&self, lan: &Lan, mac: Mac) -> Result<Ipv4Addr, String> {
        let residents = self.roster.residents(mac).await;
        let own = self.settings.interfaces.iter().flat_map(|name| read_interface(name).addresses);
        let own: Vec<Ipv4Addr> = own.collect();
        let barred = |a: Ipv4Addr| own.contains(&a) || is_used(a, lan, &residents);
        let given = self.memory().leases.allocate(lan, mac, None, barred, now_s());
        let given = given.map_err(|Exhausted| match lan.range {
            Some(range) => format!("network `{}` has no free address left in {range}", lan.name),
            None => format!("network `{}` has no `range` to give an address from", lan.name),
        })?;
        if let Some(record) = given.keep {
            self.journal.keep(record.clone()).await?;
            self.memory().leases.kept(&record);
        }
        Ok(given.address)
    }
}
