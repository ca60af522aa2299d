/** A roofline with a candidate climbing to it. */
export default '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24"><path class="jp-icon3" fill="#616161" d="M3 20V3h2v15h16v2zM7 14.6 14.4 6H21v2h-5.7L8.5 16z"/><circle class="jp-icon3" fill="#616161" cx="16" cy="13" r="2"/></svg>';
