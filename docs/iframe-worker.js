// Browsers start no worker for a page that was opened from the disk; the site's search runs in one. Here a hidden frame
// takes its place. (MkDocs Material would fetch such a script from the net; its name tells it that there is one.)
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.body.appendChild(frame);
      const inside = frame.contentWindow;
      const load = (one) => new Promise((done, failed) => {
        const script = inside.document.createElement("script");
        script.src = new URL(one, document.baseURI).href;
        script.onload = done;
        script.onerror = failed;
        inside.document.body.appendChild(script);
      });
      inside.importScripts = (...urls) => urls.reduce((before, one) => before.then(() => load(one)), Promise.resolve());
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.deliver = (data) => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
      load(url).then(() => {
        this.waiting.forEach(this.deliver);
        this.waiting = null;
      });
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.deliver(data);
    }
  };
  window.Worker = window.IFrameWorker;
}
