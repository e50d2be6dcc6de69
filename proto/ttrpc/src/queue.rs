//! A queue bounded in bytes: senders wait for room, which the receiver gives back when it is done with an item.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::timeout;

/// What an item costs beside its bytes, so that empty items are bounded too.
const ITEM_COST: usize = 128;

/// A queue with room for `budget` bytes.
pub(crate) fn channel<T>(budget: usize) -> (Sender<T>, Receiver<T>) {
    let budget = budget.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize / 2)) + ITEM_COST;
    let room = Arc::new(Semaphore::new(budget));
    let (items, waiting) = mpsc::unbounded_channel();
    (Sender { items, room: room.clone(), budget }, Receiver { waiting, room })
}

/// The receiver is gone.
#[derive(Debug)]
pub(crate) struct Closed;

/// Why an item was not queued in time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The receiver is gone.
    Closed,
    /// The receiver made no room.
    Full,
}

pub(crate) struct Sender<T> {
    items: mpsc::UnboundedSender<(T, u32)>,
    room: Arc<Semaphore>,
    budget: usize,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), room: self.room.clone(), budget: self.budget }
    }
}

impl<T> Sender<T> {
    /// Waits for room, first come first served. An item larger than the budget takes all of it.
    pub(crate) async fn reserve(&self, bytes: usize) -> Result<Permit<'_, T>, Closed> {
        let room = self.room.acquire_many(self.cost(bytes)).await.map_err(|_| Closed)?;
        Ok(Permit { sender: self, room })
    }

    /// Sends an item, if there is room for it within `limit`.
    pub(crate) async fn send_within(&self, limit: Duration, bytes: usize, item: T) -> Result<(), Refused> {
        match timeout(limit, self.reserve(bytes)).await {
            Ok(Ok(permit)) => {
                permit.send(item);
                Ok(())
            }
            Ok(Err(Closed)) => Err(Refused::Closed),
            Err(_) => Err(Refused::Full),
        }
    }

    /// Room if there is some now.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Permit<'_, T>> {
        let room = self.room.try_acquire_many(self.cost(bytes)).ok()?;
        Some(Permit { sender: self, room })
    }

    /// Sends without room; only for the one item that ends a queue.
    pub(crate) fn send_last(self, item: T) {
        let _ = self.items.send((item, 0)); // a receiver that is gone wants no end
    }

    fn cost(&self, bytes: usize) -> u32 {
        bytes.saturating_add(ITEM_COST).min(self.budget) as u32
    }
}

/// Room for one item.
pub(crate) struct Permit<'a, T> {
    sender: &'a Sender<T>,
    room: SemaphorePermit<'a>,
}

impl<T> Permit<'_, T> {
    pub(crate) fn send(self, item: T) {
        let cost = self.room.num_permits() as u32;
        self.room.forget();
        let _ = self.sender.items.send((item, cost)); // a receiver that is gone has closed the semaphore: no room leaks
    }
}

pub(crate) struct Receiver<T> {
    waiting: mpsc::UnboundedReceiver<(T, u32)>,
    room: Arc<Semaphore>,
}

impl<T> Receiver<T> {
    /// The next item; its room is given back at once. `None` when every sender is gone. Cancel safe.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        let (item, cost) = self.waiting.recv().await?;
        self.release(cost);
        Some(item)
    }

    /// The next item and its room, for [`Self::release`] when the item is done with. Cancel safe.
    pub(crate) async fn recv_held(&mut self) -> Option<(T, u32)> {
        self.waiting.recv().await
    }

    pub(crate) fn release(&self, cost: u32) {
        self.room.add_permits(cost as usize);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.room.close(); // wakes senders that wait for room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn senders_wait_for_room_and_get_it_back() {
        let (sender, mut receiver) = channel(100);
        sender.reserve(60).await.unwrap().send(1);
        assert!(sender.try_reserve(60).is_none());
        assert!(sender.reserve(60).now_or_never().is_none());
        assert_eq!(receiver.recv().await, Some(1));
        sender.try_reserve(60).expect("room was given back").send(2);
        let (item, cost) = receiver.recv_held().await.unwrap();
        assert_eq!(item, 2);
        assert!(sender.try_reserve(60).is_none(), "held room is not given back");
        receiver.release(cost);
        assert!(sender.try_reserve(60).is_some());
    }

    #[tokio::test]
    async fn an_item_larger_than_the_queue_waits_alone() {
        let (sender, mut receiver) = channel(10);
        sender.reserve(1_000_000).await.unwrap().send(());
        assert!(sender.try_reserve(0).is_none());
        receiver.recv().await.unwrap();
        assert!(sender.try_reserve(0).is_some());
    }

    #[tokio::test]
    async fn a_dropped_receiver_wakes_waiting_senders() {
        let (sender, receiver) = channel(10);
        sender.reserve(10).await.unwrap().send(());
        let waiting = sender.reserve(10);
        drop(receiver);
        assert!(waiting.await.is_err());
    }

    #[tokio::test]
    async fn a_permit_that_is_dropped_gives_its_room_back() {
        let (sender, _receiver) = channel::<()>(10);
        drop(sender.reserve(10).await.unwrap());
        assert!(sender.try_reserve(10).is_some());
    }
}
