"""The status page's style sheet. Inline on the page, whose policy allows this text and no other."""

STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--text:#1c2530;--dim:#5b6775;--line:#dfe4ea;--good:#11703f;--good-bg:#e3f4ea;--bad:#b3261e;
--bad-bg:#fcebe9;--wait:#7a5200;--wait-bg:#fdf3dc;--bar:#2f6fd0;--link:#1f5fbf}
@media (prefers-color-scheme:dark){:root{--bg:#11161c;--card:#1a2129;--text:#e6ebf1;--dim:#9aa7b5;--line:#2c3642;--good:#6fd69b;
--good-bg:#123322;--bad:#ff9c93;--bad-bg:#3b1b19;--wait:#f0c36a;--wait-bg:#372a10;--bar:#6ea3f2;--link:#8ab6f7}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:72rem;margin:0 auto;padding:0 1rem}
header{display:flex;flex-wrap:wrap;gap:.25rem 1rem;align-items:baseline;justify-content:space-between;padding-top:1.25rem}
header p,footer p{margin:.15rem 0}
.who{min-width:0;overflow-wrap:anywhere}
.product{font-weight:600;letter-spacing:.02em}
.dim{color:var(--dim)}.small{font-size:.85rem;margin:.25rem 0 0}
main:focus{outline:none}
section{margin:1rem 0}
h2{font-size:1rem;margin:0 0 .6rem}
.state,.card,.cards li{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1rem 1.25rem}
.state{border-left-width:.4rem}
.state h1{font-size:1rem;margin:0}
.badge{display:inline-flex;align-items:center;gap:.5rem;border-radius:1rem;padding:.1rem .8rem;font-size:.9rem;font-weight:600}
.dot{width:.6rem;height:.6rem;border-radius:50%;background:currentColor}
.good{border-left-color:var(--good)}.good .badge{color:var(--good);background:var(--good-bg)}
.bad{border-left-color:var(--bad)}.bad .badge{color:var(--bad);background:var(--bad-bg)}
.wait{border-left-color:var(--wait)}.wait .badge{color:var(--wait);background:var(--wait-bg)}
.sentence{font-size:1.35rem;line-height:1.35;margin:.6rem 0 0;overflow-wrap:anywhere}
.cards{list-style:none;margin:0;padding:0;display:grid;gap:.75rem}
.cards li{border-left:.4rem solid var(--bad)}.cards li.warning{border-left-color:var(--wait)}
.reason{margin:0 0 .5rem;font-weight:600;overflow-wrap:anywhere}
.cards dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem .8rem;margin:0}
.cards dt{color:var(--dim)}.cards dd{margin:0;overflow-wrap:anywhere}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem}
.columns section{margin:0}
.figure{margin:0 0 .5rem}.figure strong{font-size:1.6rem;font-variant-numeric:tabular-nums}
svg{display:block;width:100%;height:auto}
.ends{display:flex;justify-content:space-between}.axis{stroke:var(--line)}.ok{fill:var(--bar)}.failed{fill:var(--bad)}
.numbers{margin:0}.numbers div{display:flex;justify-content:space-between;gap:1rem;padding:.2rem 0;border-top:1px solid var(--line)}
.numbers div:first-child{border-top:0}.numbers dt{color:var(--dim)}
.numbers dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.35rem .9rem .35rem 0;border-top:1px solid var(--line);vertical-align:top}
td,tbody th{font-variant-numeric:tabular-nums}
td,.scroll thead th{white-space:nowrap}tbody th{font-weight:500;white-space:nowrap}
thead th{border-top:0;color:var(--dim);font-weight:500}
td.wide{white-space:normal;min-width:10rem}
.cut{overflow-wrap:anywhere;display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2;overflow:hidden}
#away{position:sticky;top:0;z-index:1;margin:0;padding:.75rem 1rem;text-align:center;font-weight:600;color:var(--bad);
background:var(--bad-bg);border-bottom:1px solid var(--bad)}
body:has(#away:not([hidden])) main{opacity:.6}
.number{text-align:right}
.id,code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.82rem}
.ok-text{color:var(--good)}.failed-text{color:var(--bad)}
a{color:var(--link)}
a:focus-visible,.scroll:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:.2rem}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:1rem;background:var(--card);padding:.5rem 1rem}
footer{color:var(--dim);font-size:.85rem;padding-bottom:2rem;overflow-wrap:anywhere}
@media (max-width:32rem){.cards dl{grid-template-columns:1fr}.sentence{font-size:1.15rem}.numbers dd{max-width:60%}}
"""
