// An editor tab: CodeMirror, and what happens when somebody else changed the
// file meanwhile.

import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import { bracketMatching, defaultHighlightStyle, foldGutter, foldKeymap, HighlightStyle, indentOnInput, indentUnit, LanguageDescription, syntaxHighlighting } from "@codemirror/language";
import { languages } from "@codemirror/language-data";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState, type Extension, Text } from "@codemirror/state";
import { drawSelection, dropCursor, EditorView, highlightActiveLine, highlightActiveLineGutter, highlightSpecialChars, keymap, lineNumbers } from "@codemirror/view";
import { tags as t } from "@lezer/highlight";
import { ago, button, confirm, fail, h, notice, prompt, say, visible } from "./dom";
import { type Changed, join, last, parent, type Place, read, Refused, shown, stat, typable, write } from "./wire";

const colors = HighlightStyle.define([
  { tag: [t.keyword, t.operatorKeyword, t.modifier, t.controlKeyword], color: "light-dark(#8a2fa8, #d79bf0)" },
  { tag: [t.string, t.special(t.string), t.regexp], color: "light-dark(#1d6f33, #7fd48f)" },
  { tag: [t.number, t.bool, t.null, t.atom], color: "light-dark(#a13d00, #f0a878)" },
  { tag: [t.comment, t.meta], color: "light-dark(#5b666c, #93a1a7)", fontStyle: "italic" },
  { tag: [t.function(t.variableName), t.function(t.propertyName)], color: "light-dark(#1f5fbf, #7fb0ff)" },
  { tag: [t.typeName, t.className, t.namespace, t.tagName], color: "light-dark(#0b6b75, #74d0da)" },
  { tag: [t.propertyName, t.attributeName, t.definition(t.propertyName)], color: "light-dark(#7a5600, #e5c46b)" },
  { tag: t.heading, fontWeight: "600", color: "light-dark(#0f6674, #6cc7d6)" },
  { tag: [t.link, t.url], textDecoration: "underline", color: "light-dark(#1f5fbf, #7fb0ff)" },
  { tag: t.emphasis, fontStyle: "italic" },
  { tag: t.strong, fontWeight: "600" },
  { tag: t.invalid, color: "var(--bad)" },
]);

const looks = EditorView.theme({
  "&": { height: "100%", backgroundColor: "var(--paper)", color: "var(--ink)", fontSize: "13px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "20px" },
  "&.cm-focused": { outline: "none" },
  ".cm-content": { caretColor: "var(--accent)" },
  ".cm-cursor": { borderLeftColor: "var(--accent)", borderLeftWidth: "2px" },
  ".cm-gutters": { backgroundColor: "var(--paper-2)", color: "var(--ink-2)", borderRight: "1px solid var(--line)" },
  ".cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--paper-3) 55%, transparent)" },
  ".cm-activeLineGutter": { backgroundColor: "var(--paper-3)", color: "var(--ink)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": { backgroundColor: "light-dark(#bfe0e6, #23525d) !important" },
  ".cm-selectionMatch": { backgroundColor: "light-dark(#e2f1f3, #16323a)" },
  ".cm-searchMatch": { backgroundColor: "light-dark(#fbe9b0, #4f4216)" },
  ".cm-searchMatch-selected": { backgroundColor: "light-dark(#ffc58a, #8a4a10)" },
  ".cm-panels": { backgroundColor: "var(--paper-2)", color: "var(--ink)", borderColor: "var(--line) !important" },
  ".cm-panel.cm-search": { fontFamily: "var(--sans)", fontSize: "13px", padding: "6px 28px 6px 12px" },
  ".cm-panel.cm-search label": { fontSize: "13px", display: "inline-flex", alignItems: "center", gap: "4px" },
  ".cm-textfield": { backgroundColor: "var(--paper)", border: "1px solid var(--line-strong)", borderRadius: "6px", fontSize: "13px", minHeight: "26px" },
  ".cm-button": { backgroundImage: "none", backgroundColor: "var(--paper)", border: "1px solid var(--line-2)", borderRadius: "6px", fontSize: "13px", minHeight: "26px" },
  ".cm-tooltip": { backgroundColor: "var(--paper-2)", border: "1px solid var(--line-2)", color: "var(--ink)" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent)", color: "var(--on-accent)" },
  ".cm-foldPlaceholder": { backgroundColor: "var(--paper-3)", border: "0", color: "var(--ink-2)" },
  ".cm-collapsedLines": { padding: "4px 12px", background: "var(--paper-2)", color: "var(--ink-2)", fontFamily: "var(--sans)", fontSize: "12px" },
  ".cm-collapsedLines::before, .cm-collapsedLines::after": { content: "none" },
  // The comparison in one column: what is on the disk has a line of its own for what can be done with it.
  ".cm-deletedChunk .cm-chunkButtons": { position: "static", display: "flex", alignItems: "center", justifyContent: "space-between", padding: "2px 6px 2px 0", color: "var(--ink-2)", fontFamily: "var(--sans)", fontSize: "12px" },
  ".cm-deletedChunk button": { minHeight: "26px", margin: "0", padding: "0 8px", border: "1px solid var(--line-strong)", borderRadius: "6px", backgroundColor: "var(--paper)", color: "var(--ink)", fontSize: "12px" },
  ".cm-matchingBracket": { backgroundColor: "var(--accent-soft) !important", outline: "1px solid var(--accent)" },
});

export interface Host {
  retitle(): void;
  moved(from: Place, to: Place): void;
  refresh(dir: Place): void;
}

function basics(label: string): Extension[] {
  return [
    lineNumbers(), highlightActiveLineGutter(), highlightSpecialChars(), history(), foldGutter({ openText: "⌄", closedText: "›" }), drawSelection(), dropCursor(),
    EditorState.allowMultipleSelections.of(true), indentOnInput(), syntaxHighlighting(colors), syntaxHighlighting(defaultHighlightStyle, { fallback: true }),
    bracketMatching(), closeBrackets(), autocompletion(), highlightActiveLine(), highlightSelectionMatches(), search({ top: true }), looks,
    EditorView.contentAttributes.of({ "aria-label": label, tabindex: "0" }),
  ];
}

// endOf is the kind of line end that a whole text has; a mixed one stays as it is.
function endOf(text: string): "\n" | "\r\n" | "mixed" {
  if (!text.includes("\r")) return "\n";
  return /\r(?!\n)|(?<!\r)\n/.test(text) ? "mixed" : "\r\n";
}

function linesOf(text: string): Text {
  return Text.of(text.split(endOf(text) === "\r\n" ? "\r\n" : "\n"));
}

export class Editor {
  readonly panel: HTMLElement;
  private view!: EditorView;
  private version = "";
  private ends: ReturnType<typeof endOf> = "\n";
  private writable = true;
  private saved = Text.empty;
  private saving: Promise<boolean> | undefined;
  dirty = false;
  private readonly banner = h("div", { class: "note", role: "status", hidden: true });
  private readonly body = h("div", { class: "editor" });
  private readonly foot = h("div", { class: "foot" });
  private readonly position = h("span", { class: "quiet" });
  private readonly state = h("span", { class: "quiet", role: "status" });
  private readonly language = new Compartment();
  private languageName = "Text";
  private asked = false; // the banner shows a conflict
  private comparing: { version: string; end(): void } | undefined;

  constructor(public place: Place, private readonly host: Host) {
    this.panel = h("section", { class: "panel", role: "tabpanel" }, this.banner, this.body, this.foot);
    this.foot.append(button("Save", () => void this.save(), "button small"), button("Save as…", () => void this.saveAs(), "button small"), this.state, h("span", { class: "grow" }), this.position);
  }

  get name(): string {
    return visible(shown(last(this.place.path)));
  }

  async load(): Promise<void> {
    await this.put(await read(this.place));
  }

  private async put(file: Awaited<ReturnType<typeof read>>): Promise<void> {
    this.version = file.version;
    this.writable = file.writable;
    this.ends = endOf(file.text);
    const state = this.make(linesOf(file.text));
    if (!this.view) {
      this.view = new EditorView({ state, parent: this.body });
    } else {
      const at = Math.min(this.view.state.selection.main.head, state.doc.length);
      const top = this.view.scrollDOM.scrollTop;
      this.view.setState(state);
      this.view.dispatch({ selection: { anchor: at } });
      this.view.scrollDOM.scrollTop = top;
    }
    this.saved = state.doc;
    this.setDirty(false);
    this.state.textContent = this.writable ? "" : "You may read this file but not change it.";
    await this.highlight();
  }

  // common is what the editor and the comparison have of this file alike.
  private common(label: string): Extension[] {
    return [
      basics(label), this.ends === "mixed" ? EditorState.lineSeparator.of("\n") : [], indentUnit.of("    "), EditorState.tabSize.of(4),
      keymap.of([
        { key: "Mod-s", run: () => { void this.save(); return true; }, preventDefault: true },
        ...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...historyKeymap, ...foldKeymap, ...completionKeymap, indentWithTab,
      ]),
    ];
  }

  private make(doc: Text): EditorState {
    return EditorState.create({
      doc,
      extensions: [
        this.common(`Text of ${this.name}`), this.language.of([]),
        EditorView.updateListener.of((u) => {
          if (u.docChanged) this.setDirty(!u.state.doc.eq(this.saved));
          if (u.docChanged || u.selectionSet) this.where();
        }),
      ],
    });
  }

  private async highlight(): Promise<void> {
    const name = this.name;
    const found = name.endsWith(".ipynb") ? languages.find((l) => l.name === "JSON") : /^Dockerfile/.test(name) ? languages.find((l) => l.name === "Dockerfile") : LanguageDescription.matchFilename(languages, name);
    if (found) {
      const support = await found.load();
      this.languageName = found.name;
      this.view.dispatch({ effects: this.language.reconfigure(support) });
    }
    this.where();
  }

  private where(): void {
    const at = this.view.state.selection.main.head;
    const line = this.view.state.doc.lineAt(at);
    this.position.textContent = `Line ${line.number}, column ${at - line.from + 1} · ${this.languageName}${this.ends === "\r\n" ? " · CRLF" : ""}`;
  }

  private text(): string {
    return this.view.state.doc.sliceString(0, undefined, this.ends === "\r\n" ? "\r\n" : "\n");
  }

  private setDirty(dirty: boolean): void {
    if (this.dirty === dirty) return;
    this.dirty = dirty;
    this.state.textContent = dirty ? "Not saved" : "";
    this.host.retitle();
  }

  show(): void {
    this.panel.hidden = false;
    this.view?.requestMeasure();
    void this.check();
  }

  focus(): void {
    this.view?.focus();
  }

  // check looks whether the file is still the one that was read. A file without
  // changes of one's own is simply read again.
  async check(): Promise<void> {
    if (!this.version || this.saving || this.asked) return;
    try {
      const now = await stat(this.place);
      if (now.version === this.version.split("-")[0] || this.saving) return;
      if (!this.dirty) {
        const before = this.saved;
        await this.load();
        if (!this.saved.eq(before)) this.state.textContent = `Read again: it was changed ${ago(now.entry.t)}.`;
      } else {
        this.conflict({ at: now.entry.t });
      }
    } catch (e) {
      if (e instanceof Refused && e.kind === "not_found") this.conflict({ at: Date.now(), gone: true });
    }
  }

  // save writes what one has, in a comparison over what it was compared with.
  async save(version = this.comparing?.version ?? this.version): Promise<boolean> {
    if (this.saving) return this.saving;
    const doc = this.view.state.doc;
    const text = this.text();
    this.saving = (async () => {
      this.state.textContent = "Saving…";
      try {
        const done = await write(this.place, text, version);
        this.version = done.version;
        this.saved = doc;
        this.setDirty(!this.view.state.doc.eq(doc));
        this.settle();
        this.state.textContent = `Saved at ${new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
        say(`${this.name} is saved.`);
        return true;
      } catch (e) {
        this.state.textContent = "Not saved";
        if (e instanceof Refused && e.changed) this.conflict(e.changed);
        else fail(e);
        return false;
      } finally {
        this.saving = undefined;
      }
    })();
    return this.saving;
  }

  async saveAs(): Promise<void> {
    const dir = parent(this.place.path);
    const name = typable(last(this.place.path));
    const help = name ? "It is put into the same folder." : "It is put into the same folder. The file's own name cannot be typed, so the new one needs another.";
    await prompt("Save as", "Name of the new file", name, "Save", async (name) => {
      const to = { root: this.place.root, path: join(dir, encodeURIComponent(name)) };
      const doc = this.view.state.doc;
      const done = await write(to, this.text(), "");
      const from = this.place;
      this.place = to;
      this.version = done.version;
      this.saved = doc;
      this.setDirty(!this.view.state.doc.eq(doc));
      this.settle();
      this.writable = true;
      this.host.moved(from, to);
      this.host.refresh({ root: to.root, path: dir });
    }, help).catch(fail);
  }

  // conflict says who changed the file and offers what can be done.
  private conflict(c: Changed): void {
    const who = c.me ? "You" : c.by ?? "Somebody";
    const words = c.gone
      ? `${this.name} was deleted or renamed meanwhile. What you see here is not on the disk.`
      : `${who} changed this file ${ago(c.at)}${c.me ? ", elsewhere" : ""}. Your changes are not saved.`;
    this.asked = true;
    const acts = c.gone
      ? [button("Save again", () => void this.save("*")), button("Save as…", () => void this.saveAs())]
      : [
        button("Compare", () => void this.compare()), button("Overwrite", () => void this.overwrite(who)), button("Save as…", () => void this.saveAs()),
        button("Take theirs", () => void this.takeTheirs()),
      ];
    this.banner.replaceChildren(h("span", { class: "words" }, words), ...acts);
    this.banner.hidden = false;
  }

  private settle(): void {
    this.asked = false;
    this.banner.hidden = true;
    this.banner.replaceChildren();
    this.endCompare();
  }

  private async overwrite(who: string): Promise<void> {
    if (await confirm(`Overwrite ${this.name}?`, `What ${who === "You" ? "you changed elsewhere" : who + " changed"} will be lost.`, "Overwrite")) await this.save("*");
  }

  private async takeTheirs(): Promise<void> {
    if (this.dirty && !await confirm("Drop your changes?", `What you changed in ${this.name} since you opened or saved it will be lost.`, "Drop my changes")) return;
    try {
      const theirs = await read(this.place);
      // Only now is there something to take; until then both are to be had.
      this.settle();
      await this.put(theirs);
    } catch (e) {
      fail(e);
    }
  }

  // compare shows both, theirs on the left; what is kept is what is on the right.
  // Where there is no room for two, theirs stands in what one has.
  private async compare(): Promise<void> {
    try {
      const theirs = await read(this.place);
      const { MergeView, unifiedMergeView } = await import("@codemirror/merge");
      if (!this.asked) return; // it was settled meanwhile
      this.endCompare();
      const original = linesOf(theirs.text);
      const narrow = matchMedia("(max-width: 720px)");
      const box = h("div", { class: "compare" }, h("div", { class: "compare-head" }, h("b", {}, "On the disk"),
        h("span", {}, h("b", {}, "Yours"), button("Save yours", () => void this.save(), "button small"), button("End comparison", () => this.endCompare(), "button small"))));
      let drawn: { destroy(): void } | undefined;
      const draw = (): void => {
        drawn?.destroy();
        const { doc, selection } = this.view.state;
        const settings = { highlightChanges: true, collapseUnchanged: { margin: 3, minSize: 6 } };
        const extensions = [this.common("What you have"), EditorView.updateListener.of((u) => {
          // The editor behind has it at once, so whatever saves or closes needs to know of one text only.
          if (u.docChanged) this.view.dispatch({ changes: u.changes, selection: u.state.selection });
        })];
        let view: EditorView;
        if (narrow.matches) {
          view = new EditorView({
            doc, selection, parent: box,
            extensions: [extensions, EditorView.lineWrapping, unifiedMergeView({
              original, ...settings,
              mergeControls: (type, act) => type === "accept" ? h("span", {}, "On the disk") : this.take("Take this", (e) => { act(e); view.focus(); }),
            })],
          });
          drawn = view;
        } else {
          const merge = new MergeView({
            a: { doc: original, extensions: [this.common("What is on the disk"), EditorState.readOnly.of(true), EditorView.editable.of(false)] },
            b: { doc, selection, extensions }, parent: box, revertControls: "a-to-b", ...settings,
            // It listens for the mouse only.
            renderRevertControl: () => this.take("⇝", (e) => { if (e.detail === 0) e.target!.dispatchEvent(new MouseEvent("mousedown", { bubbles: true })); }),
          });
          drawn = merge;
          view = merge.b;
        }
        view.focus();
      };
      this.body.hidden = true;
      this.body.after(box);
      draw();
      narrow.addEventListener("change", draw);
      this.comparing = {
        version: theirs.version,
        end: () => {
          narrow.removeEventListener("change", draw);
          drawn?.destroy();
          box.remove();
        },
      };
    } catch (e) {
      fail(e);
    }
  }

  private take(label: string, then: (e: MouseEvent) => void): HTMLButtonElement {
    const b = h("button", { type: "button", title: "Take this from the disk", "aria-label": "Take this from the disk" }, label);
    b.addEventListener("click", then);
    return b;
  }

  private endCompare(): void {
    const had = this.comparing && this.body.parentElement?.querySelector(".compare")?.contains(document.activeElement);
    this.comparing?.end();
    this.comparing = undefined;
    this.body.hidden = false;
    if (had) this.view.focus();
  }

  close(): void {
    this.endCompare();
    this.view?.destroy();
    this.panel.remove();
  }
}
