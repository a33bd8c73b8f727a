//! Accounts of a machine's further controllers: as those of its host's BMC, and only where the serial that
//! the inventory gives is what the controller shows.

use super::super::accounts;
use super::super::guard::{self, Stop};
use super::super::{RedfishBmc, fault, session};
use super::{alone, open, prove, said, told, within};
use crate::model::action::{Expect, Outcome};
use crate::model::hardware::{Account, AccountRules};
use crate::model::{Fault, Further};
use crate::port::capability::FurtherAccounts;
use crate::port::stop::settle;
use crate::port::{BmcTarget, Secret};
use async_trait::async_trait;

fn known<'a>(target: &'a BmcTarget, name: &str) -> Result<&'a Further, Fault> {
    target.endpoint.controllers.named(name).ok_or_else(|| {
        let why = format!("the inventory gives this machine no controller `{name}` any more");
        fault::precondition("no-controller", why)
    })
}

/// What it asks of passwords, and its accounts; nothing of one that is not proven.
async fn read(
    edge: &RedfishBmc,
    target: &BmcTarget,
    name: &str,
) -> Result<(AccountRules, Vec<Account>), Fault> {
    let c = known(target, name)?;
    let alone = alone(target, c);
    let read = async {
        let bmc = open(edge, &alone, c)?;
        match prove(&bmc, c).await {
            Ok(()) => accounts::read(&bmc).await,
            Err(Stop::Fault(f)) => Err(*f),
            Err(Stop::Refused { saw, .. }) => Err(fault::precondition("controller-unproven", saw)),
        }
    };
    within(edge, c, read).await
}

/// Sets the password of `user` there, once: the host is proven at its own BMC, then the controller.
async fn set(
    edge: &RedfishBmc,
    target: &BmcTarget,
    name: &str,
    user: &str,
    password: &Secret,
) -> Result<Outcome, Stop> {
    let c = known(target, name)?;
    let expect = Expect { identity: target.identity.clone(), ..Expect::default() };
    guard::check(&edge.bmc(target)?, &expect).await?;
    let alone = alone(target, c);
    let bmc = open(edge, &alone, c).map_err(|f| told(c, f))?;
    let _one = bmc.conn.write().await;
    let sent = async {
        prove(&bmc, c).await?;
        let read = accounts::read(&bmc).await?;
        accounts::put(&bmc, read, user, password).await
    };
    said(c, sent.await)
}

/// Does this login work there? One try.
async fn verify(
    edge: &RedfishBmc,
    target: &BmcTarget,
    name: &str,
    user: &str,
    password: &Secret,
) -> Result<(), Fault> {
    let c = known(target, name)?;
    let alone = alone(target, c);
    let tried = async { accounts::verify(&open(edge, &alone, c)?, user, password).await };
    tried.await.map_err(|f| told(c, f))
}

/// Logs out there.
async fn end_sessions(edge: &RedfishBmc, target: &BmcTarget, name: &str) -> Result<(), Fault> {
    let c = known(target, name)?;
    let alone = alone(target, c);
    let bmc = open(edge, &alone, c).map_err(|f| told(c, f))?;
    let _one = bmc.conn.write().await;
    session::end(edge, &bmc.conn).await.map_err(|f| told(c, f))
}

#[async_trait]
impl FurtherAccounts for RedfishBmc {
    async fn accounts_at(
        &self,
        target: &BmcTarget,
        controller: &str,
    ) -> Result<(AccountRules, Vec<Account>), Fault> {
        read(self, target, controller).await
    }

    async fn set_password_at(
        &self,
        target: &BmcTarget,
        controller: &str,
        user: &str,
        password: &Secret,
    ) -> Outcome {
        settle(set(self, target, controller, user, password).await)
    }

    async fn verify_at(
        &self,
        target: &BmcTarget,
        controller: &str,
        user: &str,
        password: &Secret,
    ) -> Result<(), Fault> {
        verify(self, target, controller, user, password).await
    }

    async fn end_sessions_at(&self, target: &BmcTarget, controller: &str) -> Result<(), Fault> {
        end_sessions(self, target, controller).await
    }
}
