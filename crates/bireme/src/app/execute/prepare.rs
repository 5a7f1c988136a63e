//! Components are compiled before their workloads are created, where that was not done when their images came in: so that it
//! is seen what takes so long.

use std::collections::BTreeSet;

use bireme_api::answers::progress::Message;
use bireme_compose::plan::platforms;
use futures::future::join_all;

use super::Executor;
use crate::progress::Bars;

impl Executor<'_> {
    /// Has the engine prepare the images of these services, all at once. What fails here, a create says better.
    pub async fn prepare(&self, services: &[String], with_dependencies: bool) {
        let Ok(project) = self.project.select(services, with_dependencies) else { return };
        let mut seen = BTreeSet::new();
        let images = project.services.iter().filter_map(|(name, service)| {
            let image = service.image_name(&project.name);
            let platforms = platforms(service);
            seen.insert((image.clone(), platforms.clone())).then_some((name, image, platforms))
        });
        join_all(images.map(|(name, image, platforms)| async move {
            for platform in platforms {
                let call = self.context.client.post("/bireme/v1/images/prepare").query("image", &image);
                match call.query_some("platform", platform.as_deref()).objects::<Message>().await {
                    Ok(messages) => {
                        let bars = Some(self.bars.clone());
                        let mut bars = Bars::new(&self.context.printer, bars, &format!("{name}: "), false);
                        let _ = bars.follow(messages).await;
                        return;
                    }
                    // It has no such platform, or this is another engine.
                    Err(_) => continue,
                }
            }
        }))
        .await;
    }
}
