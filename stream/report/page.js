// Shows and hides settings in the plots over time. Without it, all of them are shown.
for (const box of document.querySelectorAll("input[data-setting]")) {
  const show = () => {
    for (const line of document.querySelectorAll("svg .setting." + box.dataset.setting)) {
      line.style.display = box.checked ? "" : "none";
    }
  };
  box.addEventListener("change", show);
  show();
}
