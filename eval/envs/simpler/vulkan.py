"""What Vulkan offers on this machine, and the one request of SAPIEN 2.2.2 that lavapipe may lack.

SAPIEN 2.2.2 refuses every device without `VK_KHR_external_semaphore_fd`, which it needs only to
share pictures with CUDA. Mesa's software driver lavapipe lacks it in older releases.
`allow_lavapipe` changes the request, in memory, to an extension that SAPIEN asks for anyway.
Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path

SEMAPHORE = "VK_KHR_external_semaphore_fd"
RAY_TRACING = "VK_KHR_ray_tracing_pipeline"
_PLAIN_SEMAPHORE = "VK_KHR_external_semaphore"
_PROPERTIES_BYTES = 4096
"""More than VkPhysicalDeviceProperties takes (824 bytes)."""
_NAME_OFFSET = 20
_EXTENSION_BYTES = 260


@dataclass(frozen=True)
class Device:
    """One Vulkan device."""

    name: str
    driver: str
    """The driver's description of itself, such as `Mesa 25.0.7 (LLVM 15.0.6)`."""
    extensions: frozenset[str]

    @property
    def mesa(self) -> tuple[int, ...] | None:
        """Version of Mesa; None for another driver. (Its packed driver version says 0.0.1.)"""
        found = re.search(r"Mesa (\d+)\.(\d+)\.(\d+)", self.driver)
        return tuple(map(int, found.groups())) if found else None

    @property
    def software(self) -> bool:
        """Whether it renders on the CPU."""
        return "llvmpipe" in self.name.lower()


class VulkanError(RuntimeError):
    """Vulkan can't be used; the message names the missing part."""


def driver_files() -> list[Path]:
    """Manifest files of the drivers that the loader reads."""
    named = os.environ.get("VK_DRIVER_FILES") or os.environ.get("VK_ICD_FILENAMES")
    if named:
        return [Path(part) for part in named.split(os.pathsep) if Path(part).is_file()]
    roots = ("/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d")
    return sorted(path for root in roots for path in Path(root).glob("*.json"))


def driver_library(manifest: Path) -> str:
    """The library that a manifest names; empty if the file is not a manifest."""
    try:
        return str(json.loads(manifest.read_text())["ICD"]["library_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def load() -> ctypes.CDLL:
    """The Vulkan loader; `VulkanError` when it is not installed."""
    try:
        return ctypes.CDLL("libvulkan.so.1")
    except OSError as error:
        raise VulkanError(f"the Vulkan loader libvulkan.so.1 is missing ({error})") from None


def require_ray_tracing() -> None:
    """`ValueError` if no device supports ray tracing: results would carry a wrong label."""
    found = devices()
    if not any(RAY_TRACING in device.extensions for device in found):
        names = ", ".join(device.name for device in found) or "no device"
        raise ValueError(
            f"ray-tracing: expected a Vulkan device with {RAY_TRACING}, got {names}; leave "
            "--ray-tracing out, results are then labelled rasterised"
        )


class _ApplicationInfo(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int32),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("version", ctypes.c_uint32),
        ("engine", ctypes.c_char_p),
        ("engine_version", ctypes.c_uint32),
        ("api_version", ctypes.c_uint32),
    ]


class _DriverProperties(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int32),
        ("next", ctypes.c_void_p),
        ("driver_id", ctypes.c_int32),
        ("name", ctypes.c_char * 256),
        ("info", ctypes.c_char * 256),
        ("conformance", ctypes.c_uint8 * 4),
    ]


class _Properties2(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int32),
        ("next", ctypes.c_void_p),
        ("properties", ctypes.c_char * _PROPERTIES_BYTES),
    ]


class _InstanceInfo(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    ]


def devices() -> list[Device]:
    """Every Vulkan device; `VulkanError` when there is no loader or no usable driver."""
    vk = load()
    instance = ctypes.c_void_p()
    application = _ApplicationInfo(type=0, api_version=1 << 22 | 2 << 12)  # Vulkan 1.2
    info = _InstanceInfo(type=1, application=ctypes.addressof(application))
    code = vk.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance))
    if code != 0:
        raise VulkanError(f"no Vulkan driver could be started (vkCreateInstance gave {code})")
    try:
        count = ctypes.c_uint32()
        vk.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
        handles = (ctypes.c_void_p * count.value)()
        vk.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        return [_device(vk, ctypes.c_void_p(handle)) for handle in handles]
    finally:
        vk.vkDestroyInstance(instance, None)


def _device(vk: ctypes.CDLL, handle: ctypes.c_void_p) -> Device:
    # Numbers of the structures as in vulkan_core.h.
    driver = _DriverProperties(type=1000196000)
    both = _Properties2(type=1000059001, next=ctypes.addressof(driver))
    vk.vkGetPhysicalDeviceProperties2(handle, ctypes.byref(both))
    start = _Properties2.properties.offset + _NAME_OFFSET
    name = bytes(both)[start : start + 256].split(b"\0")[0].decode()
    words = f"{driver.name.decode()} {driver.info.decode()}"
    count = ctypes.c_uint32()
    vk.vkEnumerateDeviceExtensionProperties(handle, None, ctypes.byref(count), None)
    rows = ctypes.create_string_buffer(_EXTENSION_BYTES * max(count.value, 1))
    vk.vkEnumerateDeviceExtensionProperties(handle, None, ctypes.byref(count), rows)
    starts = range(0, _EXTENSION_BYTES * count.value, _EXTENSION_BYTES)
    names = (rows.raw[start : start + 256].split(b"\0")[0].decode() for start in starts)
    return Device(name, words, frozenset(names))


def allow_lavapipe() -> None:
    """Make SAPIEN accept this machine's devices if none has the semaphore extension.

    Call after `import sapien.core` and before a renderer is made. `VulkanError` if there is no
    device at all.
    """
    found = devices()
    if not found:
        raise VulkanError("no Vulkan device: a driver is installed and found none")
    if any(SEMAPHORE in device.extensions for device in found):
        return
    wanted, instead = SEMAPHORE.encode() + b"\0", _PLAIN_SEMAPHORE.encode() + b"\0"
    places = [
        (start + match.start(), executable)
        for start, stop, executable in _read_only_parts("libsapien.so")
        for match in re.finditer(re.escape(wanted), ctypes.string_at(start, stop - start))
    ]
    if not places:
        raise VulkanError(f"no device has {SEMAPHORE}, and SAPIEN's request for it was not found")
    for place, executable in places:
        _overwrite(place, instead, len(wanted), executable)


def _read_only_parts(library: str) -> list[tuple[int, int, bool]]:
    """Start, stop and whether it is executable, of each read-only mapping of a loaded library."""
    parts = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].endswith(library) and re.fullmatch("r-..", fields[1]):
            start, _, stop = fields[0].partition("-")
            parts.append((int(start, 16), int(stop, 16), "x" in fields[1]))
    return parts


def _overwrite(place: int, text: bytes, room: int, executable: bool) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    page = place - place % mmap.PAGESIZE
    span = -(-(place + room - page) // mmap.PAGESIZE) * mmap.PAGESIZE
    rights = mmap.PROT_READ | mmap.PROT_EXEC * executable
    if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(span), rights | mmap.PROT_WRITE):
        raise VulkanError(f"SAPIEN's memory can't be changed (errno {ctypes.get_errno()})")
    ctypes.memmove(place, text, len(text))
    libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(span), rights)
