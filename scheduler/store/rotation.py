"""Every secret of a database under a new key, in one transaction."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.store.keys import KeyStore
from scheduler.store.oauth_clients import OAuthClientStore
from scheduler.store.pods import PodStore
from scheduler.store.registries import RegistryLoginStore
from scheduler.store.systems import CredentialStore


async def reseal_everything(db: AsyncSession) -> int:
    """Seal every secret anew, with the present key of the box that the database was opened with; how many rows."""
    stores = CredentialStore(db), RegistryLoginStore(db), KeyStore(db), PodStore(db), OAuthClientStore(db)
    return sum([await store.reseal() for store in stores])
