// The start of the page.

import "uplot/dist/uPlot.min.css";
import "./style/base.css";
import "./style/frame.css";
import "./style/parts.css";
import "./style/data.css";
import "./style/narrow.css";
import { render } from "preact";
import { startWatch } from "./api";
import { App } from "./app";
import { showTheme } from "./state";

showTheme();
startWatch();
const root = document.getElementById("app");
if (root) {
  root.replaceChildren();
  render(<App />, root);
}
