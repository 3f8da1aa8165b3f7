"""Routes of hardware: the devices that latency can be priced for, and tables of measurements that users send."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from ...errors import NotFound
from .identity import Viewer
from .plain import plain
from .responses import ALWAYS, problems

router = APIRouter(tags=["devices"], responses=ALWAYS)


class DeviceView(BaseModel):
    """A device."""

    model_config = ConfigDict(extra="allow")

    device: str = Field(examples=["nvidia-h100-sxm"])
    latency: str = Field(description="measured, or roofline", examples=["measured"])
    tables: list[dict[str, Any]] = Field(description="measured tables: runtime, kernels, rows, source, digest")


@router.get("/devices", summary="The devices that latency can be priced for")
def devices(request: Request, who: Viewer) -> list[DeviceView]:
    """With their data sheets and tables."""
    from ..device_document import device_rows

    return [DeviceView.model_validate(plain(row)) for row in device_rows()]


@router.get("/devices/{name}", summary="One device in full", responses=problems(404))
def device(
    request: Request, who: Viewer, name: Annotated[str, Path(max_length=80, pattern="^[a-z0-9_.-]+$")]
) -> DeviceView:
    """Also which table answers for each kernel."""
    from ..device_document import device_detail, device_rows

    if all(row["device"] != name for row in device_rows()):
        raise NotFound(f"no device {name!r}; GET /v1/devices lists them")
    return DeviceView.model_validate(plain(device_detail(name)))
