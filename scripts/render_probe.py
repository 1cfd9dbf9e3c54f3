"""Draw one small picture with the backend that MUJOCO_GL names; exit 0 when it shows something."""

import mujoco

SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="box" size=".5 .5 .5" rgba="1 0 0 1"/>
  </worldbody>
</mujoco>
"""


def main() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, height=32, width=32) as renderer:
        renderer.update_scene(data)
        picture = renderer.render()
    if picture.max() == 0:
        raise SystemExit("the picture is black")


if __name__ == "__main__":
    main()
