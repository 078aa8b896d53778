// Loads data that lie beside the page, compressed, in script files: a page opened from the file system may run those, and read nothing.
"use strict";

const spikebench = {
  waiting: new Map(),

  async unpack(text) {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  },

  receive(name, text) {
    const { resolve, reject } = this.waiting.get(name);
    this.unpack(text).then(resolve, reject);
  },

  load(name) {
    return new Promise((resolve, reject) => {
      this.waiting.set(name, { resolve, reject });
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.addEventListener("error", () => reject(new Error(`data/${name}.js is missing`)));
      document.head.append(script);
    });
  },
};
