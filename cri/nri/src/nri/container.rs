//! The life of a container.

use futures::future::join_all;
use kevel_model::{Error, Result};

use super::{
    Adjusted, Nri, Subject,
    ask::{decode, logged},
};
use crate::{
    api::{
        Container, CreateContainerRequest, CreateContainerResponse, Event, LinuxResources, PluginInstance, PodSandbox,
        StopContainerRequest, StopContainerResponse, UpdateContainerRequest, UpdateContainerResponse,
        ValidateContainerAdjustmentRequest, ValidateContainerAdjustmentResponse,
    },
    event,
    merge::{Changes, Created, Creation, Refused},
    metrics,
    plugin::{Answer, Question},
    stage::Stage,
    validator::Validator,
};

fn refused(error: Refused) -> Error {
    Error::failed_precondition("merging what NRI plugins want").with_source(error)
}

impl Nri {
    /// A container is about to be made: what plugins want of it, after every validator has agreed. What they want of
    /// others is done. `None` when there is nobody to ask.
    ///
    /// # Errors
    /// A plugin's refusal, two plugins that want different things, a validator's rejection. Undo with
    /// [`Nri::undo_container`].
    pub async fn create_container(
        &self,
        id: &str,
        describe: impl Future<Output = Result<(PodSandbox, Container)>> + Send,
    ) -> Result<Adjusted> {
        if self.config.disable {
            return Ok(None);
        }
        let mut stage = self.stages.alone(id).await;
        *stage = Some(Stage::Made);
        if !self.is_heard() {
            return Ok(None);
        }
        let (pod, container) = describe.await?;
        let created = self.ask_for_adjustment(pod, container).await?;
        drop(stage);
        self.apply(created.changes.updates, created.changes.evict).await;
        Ok(Some(created.adjust))
    }

    async fn ask_for_adjustment(&self, pod: PodSandbox, container: Container) -> Result<Created> {
        let event = Event::CreateContainer;
        let mut creation =
            Creation::new(CreateContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) });
        let mut asked = Vec::new();
        for plugin in self.plugins().iter() {
            let answer = match plugin.events.has(event) {
                true => plugin.ask(&Question::request(event, creation.request())).await?,
                false => Answer::Unasked,
            };
            // One that is gone or failed to answer was not asked, whatever its policy.
            match answer {
                Answer::Lost => continue,
                Answer::Unasked => {}
                Answer::Given(answer) => {
                    let answer: CreateContainerResponse = decode(plugin, event, answer)?;
                    let (updates, evict) = (answer.update.len(), answer.evict.len());
                    metrics::adjusted(&plugin.full_name, event::method(event), updates, evict);
                    creation.apply(&plugin.full_name, answer).map_err(refused)?;
                }
            }
            asked.push(PluginInstance { name: plugin.name.clone(), index: plugin.index.clone() });
        }
        let created = creation.finish();
        self.validate(pod, container, &created, asked).await?;
        Ok(created)
    }

    /// Has every validator judge what came together.
    async fn validate(
        &self,
        pod: PodSandbox,
        pristine: Container,
        created: &Created,
        mut plugins: Vec<PluginInstance>,
    ) -> Result<()> {
        let event = Event::ValidateContainerAdjustment;
        let all = self.plugins();
        let validators: Vec<_> = all.iter().filter(|plugin| plugin.events.has(event)).collect();
        if validators.is_empty() && self.validator.is_none() {
            return Ok(());
        }
        if self.validator.is_some() {
            let (index, name) = Validator::NAME;
            plugins.insert(0, PluginInstance { name: name.to_owned(), index: index.to_owned() });
        }
        let request = ValidateContainerAdjustmentRequest {
            pod: Some(pod),
            container: Some(pristine),
            adjust: Some(created.adjust.clone()),
            update: created.changes.updates.clone(),
            owners: Some(created.owners.clone()),
            plugins,
        };
        let rejected = |by: &str, reason: &str| {
            Error::failed_precondition(format!("NRI validator {by} rejects the container: {reason}"))
        };
        if let Some(validator) = &self.validator {
            validator.validate(&request).map_err(|reason| rejected(Validator::NAME.1, &reason))?;
        }
        let question = Question::request(event, &request);
        let judge = async |plugin: &crate::plugin::Peer| -> Result<()> {
            match plugin.ask(&question).await? {
                Answer::Unasked => Ok(()), // it lacks the method, so it cannot be a validator
                Answer::Lost => Err(rejected(&plugin.full_name, "it did not answer")),
                Answer::Given(answer) => {
                    let answer: ValidateContainerAdjustmentResponse = decode(plugin, event, answer)?;
                    if answer.reject { Err(rejected(&plugin.full_name, &answer.reason)) } else { Ok(()) }
                }
            }
        };
        join_all(validators.into_iter().map(|plugin| judge(plugin))).await.into_iter().collect()
    }

    /// A container that plugins were asked about will not be.
    pub async fn undo_container(&self, id: &str, describe: impl Future<Output = Option<Subject>> + Send) {
        self.remove_container(id, describe).await;
    }

    /// A container was made.
    pub async fn post_create_container(&self, id: &str, describe: impl Future<Output = Option<Subject>> + Send) {
        logged(id, Event::PostCreateContainer, self.notify(Event::PostCreateContainer, id, describe).await);
    }

    /// A container is about to be started.
    ///
    /// # Errors
    /// A plugin's refusal. Plugins are told of the container's end by [`Nri::stop_container`] then.
    pub async fn start_container(
        &self,
        id: &str,
        describe: impl Future<Output = Option<Subject>> + Send,
    ) -> Result<()> {
        self.notify(Event::StartContainer, id, describe).await
    }

    /// A container runs.
    pub async fn post_start_container(&self, id: &str, describe: impl Future<Output = Option<Subject>> + Send) {
        logged(id, Event::PostStartContainer, self.notify(Event::PostStartContainer, id, describe).await);
    }

    /// A container's limits are about to change: what they are to change to, when plugins want something else than was
    /// asked. What they want of others is done. Call it without a lock that an update of another container may need.
    ///
    /// # Errors
    /// A plugin's refusal, and two plugins that want different things.
    pub async fn update_container(
        &self,
        id: &str,
        describe: impl Future<Output = Option<Subject>> + Send,
        limits: LinuxResources,
    ) -> Result<Option<LinuxResources>> {
        let event = Event::UpdateContainer;
        let plugins = self.plugins();
        if !plugins.iter().any(|plugin| plugin.events.has(event)) {
            return Ok(None);
        }
        let Some(Subject { pod, container }) = describe.await else { return Ok(None) };
        let alone = self.stages.alone(id).await;
        let mut changes = Changes::of(id, limits);
        for plugin in plugins.iter() {
            let request = UpdateContainerRequest {
                pod: Some(pod.clone()),
                container: container.clone(),
                linux_resources: changes.target().cloned(),
            };
            if let Answer::Given(answer) = plugin.ask(&Question::request(event, &request)).await? {
                let answer: UpdateContainerResponse = decode(plugin, event, answer)?;
                let (updates, evict) = (answer.update.len(), answer.evict.len());
                metrics::adjusted(&plugin.full_name, event::method(event), updates, evict);
                changes.apply(&plugin.full_name, answer.update, answer.evict).map_err(refused)?;
            }
        }
        drop(alone);
        let changed = changes.finish();
        self.apply(changed.updates, changed.evict).await;
        Ok(changed.target)
    }

    /// A container's limits have changed.
    pub async fn post_update_container(&self, id: &str, describe: impl Future<Output = Option<Subject>> + Send) {
        logged(id, Event::PostUpdateContainer, self.notify(Event::PostUpdateContainer, id, describe).await);
    }

    /// A container has ended, or will not run. Told once. What plugins want of others is done.
    pub async fn stop_container(&self, id: &str, describe: impl Future<Output = Option<Subject>> + Send) {
        if self.config.disable {
            return;
        }
        let event = Event::StopContainer;
        let mut stage = self.stages.alone(id).await;
        let Some(next) = Stage::after(*stage, event) else {
            self.stages.forget(id, stage);
            return;
        };
        let plugins = self.plugins();
        let listens = plugins.iter().any(|plugin| plugin.events.has(event));
        let subject = if listens { describe.await } else { None };
        let mut changes = Changes::new();
        if let Some(Subject { pod, container }) = subject {
            let question = Question::request(event, &StopContainerRequest { pod: Some(pod), container });
            for plugin in plugins.iter() {
                let told = match plugin.ask(&question).await {
                    Ok(Answer::Given(answer)) => decode(plugin, event, answer).and_then(|answer| {
                        let StopContainerResponse { update } = answer;
                        metrics::adjusted(&plugin.full_name, event::method(event), update.len(), 0);
                        changes.apply(&plugin.full_name, update, Vec::new()).map_err(refused)
                    }),
                    other => other.map(|_| ()),
                };
                logged(id, event, told);
            }
        }
        *stage = next;
        drop(stage);
        let changed = changes.finish();
        self.apply(changed.updates, changed.evict).await;
    }

    /// A container is about to be gone from lists. Told once; one that plugins think of as running ends first.
    pub async fn remove_container(&self, id: &str, describe: impl Future<Output = Option<Subject>> + Send) {
        if self.config.disable {
            return;
        }
        let subject = if self.is_heard() { describe.await } else { None };
        self.stop_container(id, async { subject.clone() }).await;
        let told = self.notify(Event::RemoveContainer, id, async { subject.clone() }).await;
        logged(id, Event::RemoveContainer, told);
    }
}
