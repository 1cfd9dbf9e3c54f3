"""The two scenes: SIMPLER's three-drawer cabinet and its table, as MJCF from primitives.

The world frame is SIMPLER's: drawers open towards +x, where the robot stands looking along -x;
a closed cabinet's front is the plane x = 0 and the drawers' middles are at z = 0.685, 0.44, 0.195.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.envs.mujoco.robot import CAMERA_SIZE, DEFAULTS_XML, actuators_xml, robot_xml

CONTROL_HZ = 3.0
SUBSTEPS = 100
TIMESTEP = 1.0 / (CONTROL_HZ * SUBSTEPS)

DRAWERS = {"top": 0.685, "middle": 0.44, "bottom": 0.195}
"""Height of each drawer's handle, m."""
DRAWER_RANGE = 0.30
HANDLE_STANDOFF = 0.045
CABINET_TOP = 0.835
TABLE_TOP = 0.87


@dataclass(frozen=True)
class ObjectSpec:
    """A free rigid object made of one colliding primitive and some paint."""

    name: str
    language: str
    shape: str
    size: tuple[float, ...]
    """MuJoCo half sizes, m."""
    rgba: str
    mass: float
    paint: str = ""

    @property
    def half_height(self) -> float:
        return {"sphere": self.size[0], "cylinder": self.size[-1], "box": self.size[-1]}[self.shape]

    @property
    def radius(self) -> float:
        """Half of the footprint's diagonal, SIMPLER's measure in "move near", m."""
        sides = self.size[:2] if self.shape == "box" else (self.size[0], self.size[0])
        return float((sides[0] ** 2 + sides[1] ** 2) ** 0.5)


def _paint(size: str, z: float, rgba: str) -> str:
    return f'<geom class="paint" type="cylinder" size="{size}" pos="0 0 {z}" rgba="{rgba}"/>'


def _band(radius: float, half: float, z: float, rgba: str) -> str:
    # a hair wider than the body, so that it shows
    return _paint(f"{radius + 0.0008} {half}", z, rgba)


def _can(name: str, language: str, rgba: str, band: str) -> ObjectSpec:
    lids = _band(0.0295, 0.002, 0.0615, "0.8 0.8 0.82 1") + _band(
        0.0295, 0.002, -0.0615, "0.7 0.7 0.72 1"
    )
    return ObjectSpec(
        name,
        language,
        "cylinder",
        (0.033, 0.061),
        rgba,
        0.12,
        _band(0.033, 0.014, 0.008, band) + lids,
    )


OBJECTS = {
    o.name: o
    for o in (
        ObjectSpec(
            "apple", "apple", "sphere", (0.0375,), "0.78 0.10 0.08 1", 0.13,
            _paint("0.004 0.012", 0.043, "0.3 0.2 0.08 1"),
        ),
        ObjectSpec("orange", "orange", "sphere", (0.036,), "0.95 0.50 0.05 1", 0.12),
        _can("coke_can", "coke can", "0.75 0.03 0.05 1", "0.95 0.95 0.95 1"),
        _can("pepsi_can", "pepsi can", "0.05 0.12 0.55 1", "0.85 0.88 0.95 1"),
        _can("7up_can", "7up can", "0.05 0.50 0.15 1", "0.95 0.90 0.20 1"),
        ObjectSpec("sponge", "sponge", "box", (0.028, 0.045, 0.022), "0.90 0.82 0.22 1", 0.05),
        ObjectSpec(
            "blue_plastic_bottle", "blue plastic bottle", "cylinder", (0.030, 0.075),
            "0.15 0.45 0.85 1", 0.10,
            _paint("0.014 0.012", 0.086, "0.95 0.95 0.95 1"),
        ),
    )
}  # fmt: skip


def _object_xml(spec: ObjectSpec, index: int) -> str:
    size = " ".join(map(str, spec.size))
    # condim 6: rolling friction lets round things come to rest
    return f"""
  <body name="{spec.name}" pos="{3 + 0.3 * index} 3 {spec.half_height + 0.001}">
    <freejoint name="{spec.name}"/>
    <geom name="{spec.name}" type="{spec.shape}" size="{size}" rgba="{spec.rgba}"
          mass="{spec.mass}" condim="6" friction="1.0 0.02 0.003" conaffinity="3"/>
    {spec.paint}
  </body>"""


def _drawer_xml(name: str, z: float) -> str:
    """Front panel, tray and a bar handle along y on two posts, on one slide joint along +x."""
    wood, tray = "0.80 0.68 0.50 1", "0.72 0.62 0.47 1"
    bar = HANDLE_STANDOFF
    return f"""
    <body name="drawer_{name}" pos="0 0 {z}">
      <joint name="drawer_{name}" type="slide" axis="1 0 0" range="0 {DRAWER_RANGE}" damping="6"
             frictionloss="1.5" armature="0.5"/>
      <geom class="furniture" name="{name}_front" type="box" pos="-0.01 0 0"
            size="0.01 0.268 0.116" rgba="{wood}" mass="0.8"/>
      <geom class="tray" name="{name}_floor" type="box" pos="-0.19 0 -0.095"
            size="0.17 0.24 0.006" rgba="{tray}" mass="0.4"/>
      <geom class="tray" name="{name}_side_a" type="box" pos="-0.19 0.235 -0.04"
            size="0.17 0.006 0.055" rgba="{tray}" mass="0.1"/>
      <geom class="tray" name="{name}_side_b" type="box" pos="-0.19 -0.235 -0.04"
            size="0.17 0.006 0.055" rgba="{tray}" mass="0.1"/>
      <geom class="tray" name="{name}_back" type="box" pos="-0.355 0 -0.04"
            size="0.006 0.235 0.055" rgba="{tray}" mass="0.1"/>
      <geom class="handle" name="{name}_handle" type="capsule"
            fromto="{bar} -0.085 0 {bar} 0.085 0" size="0.009" mass="0.05"/>
      <geom class="handle" type="capsule" fromto="0 -0.085 0 {bar} -0.085 0"
            size="0.007" mass="0.02"/>
      <geom class="handle" type="capsule" fromto="0 0.085 0 {bar} 0.085 0"
            size="0.007" mass="0.02"/>
      <site name="handle_{name}" pos="{bar} 0 0" size="0.004" rgba="0 0 0 0"/>
    </body>"""


def _cabinet_xml() -> str:
    wood = "0.70 0.57 0.40 1"
    shell = "".join(
        f'<geom class="furniture" type="box" pos="{p}" size="{s}" rgba="{wood}"/>'
        for p, s in [
            ("-0.21 0.285 0.41", "0.21 0.015 0.41"),
            ("-0.21 -0.285 0.41", "0.21 0.015 0.41"),
            ("-0.41 0 0.41", "0.01 0.28 0.41"),
            ("-0.21 0 0.035", "0.21 0.27 0.035"),
        ]
    )
    height = CABINET_TOP - 0.0125
    top = (
        f'<geom class="furniture" name="cabinet_top" type="box" pos="-0.21 0 {height}"'
        ' size="0.212 0.3 0.0125" material="tabletop"/>'
    )
    drawers = "".join(_drawer_xml(n, z) for n, z in DRAWERS.items())
    return f'<body name="cabinet">{shell}{top}{drawers}</body>'


def _table_xml() -> str:
    return f"""
  <body name="table" pos="-0.295 0.21 0">
    <geom class="furniture" name="table_top" type="box" pos="0 0 {TABLE_TOP - 0.02}"
          size="0.315 0.3075 0.02" material="tabletop"/>
    <geom class="furniture" type="box" pos="-0.02 0 {(TABLE_TOP - 0.04) / 2}"
          size="0.27 0.27 {(TABLE_TOP - 0.04) / 2}" rgba="0.75 0.75 0.77 1"/>
  </body>"""


_SCENES = {"drawer": (_cabinet_xml, ("apple",)), "table": (_table_xml, tuple(OBJECTS))}


def scene_xml(scene: str) -> str:
    """Complete MJCF of a scene ("drawer" or "table")."""
    furniture, names = _SCENES[scene]
    objects = "".join(_object_xml(OBJECTS[n], i) for i, n in enumerate(names))
    height, width = CAMERA_SIZE
    return f"""
<mujoco model="selfflow_wm_{scene}">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP:.9f}" integrator="implicitfast" cone="elliptic" impratio="5"/>
  <visual>
    <global offwidth="{width}" offheight="{height}"/>
    <quality offsamples="0" shadowsize="0"/>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.25 0.25 0.25" specular="0 0 0"/>
    <map znear="0.02" zfar="20"/>
  </visual>
  {DEFAULTS_XML}
  <default>
    <default class="furniture"><geom conaffinity="3"/></default>
    <default class="tray"><geom conaffinity="3"/></default>
    <default class="handle">
      <geom conaffinity="3" rgba="0.25 0.25 0.27 1" friction="1.2 0.02 0.001"/>
    </default>
    <default class="paint"><geom contype="0" conaffinity="0" density="0"/></default>
  </default>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1="0.75 0.77 0.8" width="32" height="32"/>
    <texture name="floor" type="2d" builtin="checker" rgb1="0.45 0.44 0.43" rgb2="0.50 0.49 0.47"
             width="256" height="256"/>
    <material name="floor" texture="floor" texrepeat="12 12" reflectance="0"/>
    <material name="tabletop" rgba="0.86 0.82 0.74 1" specular="0.1"/>
  </asset>
  <worldbody>
    <light name="ceiling" pos="0.6 0.5 2.6" dir="-0.3 -0.2 -1" diffuse="0.55 0.55 0.55"
           specular="0.1 0.1 0.1" castshadow="false"/>
    <geom name="ground" type="plane" size="6 6 0.1" material="floor" conaffinity="3"/>
    <geom class="visual" type="box" pos="-0.75 0 1.2" size="0.02 4 1.2" rgba="0.80 0.80 0.78 1"/>
    {furniture()}
    {robot_xml()}
    {objects}
  </worldbody>
  {actuators_xml()}
</mujoco>"""
