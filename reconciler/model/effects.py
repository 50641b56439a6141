"""Every way in which vectl changes a host: one closed union of data."""

from __future__ import annotations

from typing import TypeAlias, get_args

from reconciler.model import (
    compute,
    devices,
    mounts,
    network,
    placement,
    power,
    quota,
    reach,
    settings,
    snapshots,
    views,
    volume,
    vxlan,
)
from reconciler.model.identity import Uid

Effect: TypeAlias = (
    volume.BuildTemplate
    | volume.CaptureTemplate
    | volume.RemoveTemplate
    | volume.WriteRecord
    | volume.CreateVolume
    | volume.SetVolumeSize
    | volume.TrashVe
    | volume.RestoreVe
    | volume.PurgeTrash
    | snapshots.TakeSnapshot
    | snapshots.DeleteSnapshot
    | snapshots.RollBack
    | snapshots.ReplaceVolume
    | snapshots.CloneVolume
    | quota.LoadQuotas
    | quota.SetQuota
    | quota.SetInodes
    | compute.CreateCgroup
    | compute.SetLimit
    | compute.SetInstanceLimit
    | compute.RemoveCgroup
    | power.CreateRuntime
    | power.StartRuntime
    | power.StopRuntime
    | power.SuspendRuntime
    | power.DiscardMemory
    | power.DeleteRuntime
    | power.ForgetEnd
    | network.CreateNetwork
    | network.SetNetworkMtu
    | network.SetNetworkUp
    | network.AddGateway
    | network.RemoveGateway
    | network.SetForwarding
    | network.SetUplink
    | network.RemoveNetwork
    | vxlan.SetTunnel
    | vxlan.RemoveTunnel
    | network.LoadFilter
    | reach.RestoreAddress
    | reach.RestoreRoute
    | network.CreateInterface
    | network.RemoveInterface
    | network.AttachInterface
    | network.SetInterfaceUp
    | network.SetLoopbackUp
    | network.SetInterfaceMtu
    | network.SetInterfaceMac
    | network.SetInterfaceRate
    | network.AddAddress
    | network.RemoveAddress
    | network.AddRoute
    | network.RemoveRoute
    | network.AddHostRoute
    | network.RemoveHostRoute
    | network.AnnounceAddress
    | network.SetHostname
    | network.SetResolver
    | devices.AddDevice
    | devices.RemoveDevice
    | devices.AddNic
    | devices.RemoveNic
    | mounts.AddMount
    | mounts.RemoveMount
    | views.ShowViews
    | settings.SetSetting
    | placement.CutParcel
    | placement.HoldRuntime
    | placement.ResumeHeld
    | placement.EndHeld
    | placement.OpenRuntime
    | placement.PlaceArrival
    | placement.ClearMove
)

EFFECT_TYPES: tuple[type, ...] = get_args(Effect)


def touched_by(effect: Effect) -> tuple[Uid, ...]:
    """Name the VEs that an effect could let go on, end, or write to, which those that are held for a move must not be.

    What belongs to the move itself knows how it finds them.
    """
    match effect:
        case placement.HoldRuntime() | placement.ResumeHeld() | placement.EndHeld() | placement.PlaceArrival():
            return ()
        case volume.WriteRecord():
            return (effect.record.uid,)
        case snapshots.CloneVolume():
            return effect.uid, effect.source
        case _:
            uid: Uid | None = getattr(effect, "uid", None)
            return () if uid is None else (uid,)


def effect_name(effect: Effect) -> str:
    """Give the effect's name as failpoints, journal and log know it, e.g. ``SetLimit``."""
    return type(effect).__name__
