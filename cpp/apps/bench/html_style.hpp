#pragma once

namespace ovfast::bench {

/// CSS of the HTML report. Series colours differ in lightness too, for readers who see few hues.
inline constexpr const char* kHtmlStyle = R"css(
:root {
  --page: #f7f8fa; --card: #ffffff; --text: #1b2330; --dim: #5d6878; --line: #dfe3e9;
  --grid: #e8ebf0; --good: #137a4a; --bad: #b3261e; --warn-back: #fff4d6; --warn: #6b4e00;
  --bad-back: #fde7e5; --meter: #2a6fdb; --meter-back: #e4e9f1;
  --s0: #2a6fdb; --s1: #d9730d; --s2: #0f8a6c; --s3: #b0357f; --s4: #6b52c8; --s5: #64748b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161d; --card: #1a2029; --text: #e6eaf0; --dim: #98a3b3; --line: #2c3542;
    --grid: #28303c; --good: #5fd09a; --bad: #ff8f85; --warn-back: #3a2f12; --warn: #f2d68a;
    --bad-back: #44201d; --meter: #6aa3ff; --meter-back: #2a3340;
    --s0: #6aa3ff; --s1: #f5a352; --s2: #43c9a3; --s3: #ec7fc0; --s4: #a995ff; --s5: #a3b1c4;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 24px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 10px; }
h3 { font-size: 15px; margin: 18px 0 8px; }
header p { margin: 2px 0 18px; color: var(--dim); }
section, figure, .tile { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
section { padding: 16px 18px; margin: 0 0 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
.tile { padding: 12px 16px; }
.tile .name { color: var(--dim); font-size: 13px; }
.tile .value { font-size: 26px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile .value span { font-size: 14px; font-weight: 400; color: var(--dim); margin-left: 5px; }
.note { color: var(--dim); font-size: 13px; margin: 8px 0 0; }
.tiles + .note { margin-bottom: 18px; }
.message { border-radius: 8px; padding: 9px 14px; margin: 0 0 12px; }
.message.warn { background: var(--warn-back); color: var(--warn); }
.message.bad { background: var(--bad-back); color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: 14px; }
th, td { padding: 6px 10px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 500; }
tbody tr:last-child td { border-bottom: 0; }
th.text, td.text { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
td.strong { font-weight: 600; }
td.good { color: var(--good); font-weight: 600; }
td.bad { color: var(--bad); font-weight: 600; }
td.dim { color: var(--dim); }
td.meter { width: 130px; min-width: 90px; }
td.meter span { display: block; height: 8px; border-radius: 4px; background: var(--meter); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr));
  gap: 18px; margin: 0 0 18px; }
figure { margin: 0; padding: 14px 16px; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: 6px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 0 0 6px;
  padding: 0; font-size: 13px; color: var(--dim); }
.swatch { display: inline-block; width: 14px; height: 3px; border-radius: 2px; margin-right: 6px;
  vertical-align: middle; background: currentColor; }
svg { width: 100%; height: auto; display: block; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
.s3 { color: var(--s3); } .s4 { color: var(--s4); } .s5 { color: var(--s5); }
.grid { stroke: var(--grid); } .axis { stroke: var(--dim); }
.tick { fill: var(--dim); font-size: 12px; } .label { fill: var(--dim); font-size: 12.5px; }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.whisker { stroke: currentColor; stroke-width: 2; opacity: 0.45; }
.dot { fill: currentColor; stroke: var(--card); stroke-width: 1.5; }
pre { background: var(--page); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px;
  overflow-x: auto; font-size: 13px; margin: 12px 0 0; }
)css";

}  // namespace ovfast::bench
