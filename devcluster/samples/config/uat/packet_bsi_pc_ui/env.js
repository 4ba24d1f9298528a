window.env = { environment: "uat", project: "packet_bsi_pc_ui", api: "http://api.uat.package.test" };
